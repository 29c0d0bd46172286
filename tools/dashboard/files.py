"""Prometheus' own programs, and the rule and dashboard files that they are given."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "charts" / "careen" / "files" / "alerts.yaml"
DASHBOARD = ROOT / "charts" / "careen" / "files" / "dashboard.json"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "careen" / "prometheus" / "usr" / "bin"
"""Where `tools/packages observe` puts them: taken out of their package, since installing it would start a server."""
SUFFIXES = ("_bucket", "_sum", "_count")


def find_program(name: str) -> str:
    """Path of prometheus or promtool; FileNotFoundError that says what installs it."""
    found = shutil.which(name, path=f"{CACHE}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        raise FileNotFoundError(f"{name} is missing; `tools/packages observe` gets it")
    return found


def read_rules() -> dict[str, dict[str, Any]]:
    """The alert rules by name."""
    document = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))
    return {rule["alert"]: rule for group in document["groups"] for rule in group["rules"]}


def find_metrics(expression: str) -> set[str]:
    """Names of our metrics in an expression; a histogram's parts count as the histogram."""
    found = set(re.findall(r"\bcareen_[a-z_]+", expression))
    return {_whole(name) for name in found}


def _whole(name: str) -> str:
    for suffix in SUFFIXES:
        if name.endswith(f"_seconds{suffix}"):
            return name.removesuffix(suffix)
    return name


@dataclass(frozen=True)
class Query:
    """One query of a panel."""

    panel: str
    expression: str
    """With the dashboard's variables filled in."""
    legend: str
    instant: bool


def list_queries(panel: dict[str, Any], *, range_seconds: int, rate_seconds: int) -> list[Query]:
    """A panel's queries for a span of time, over all policies."""
    filled = {"$__rate_interval": f"{rate_seconds}s", "$__range": f"{range_seconds}s", "$policy": ".*"}
    found = []
    for target in panel.get("targets", ()):
        expression = str(target["expr"])
        for name, value in filled.items():
            expression = expression.replace(name, value)
        found.append(Query(panel["title"], expression, target.get("legendFormat", ""), bool(target.get("instant"))))
    return found


def shorten_rules(text: str, *, after: str = "1s", window: str = "20s") -> str:
    """The rules with all their times made short, for scenarios that can't wait for hours.

    The metadata's time before its end is made long instead: a repository that was just signed is then about to expire.
    """
    text = re.sub(r"for: \w+", f"for: {after}", text)
    shorter = {"[1h]": f"[{window}]", "[6m]": "[3s]", "> 7200": "> 3", "- time() < 43200": "- time() < 8640000"}
    for long, short in shorter.items():
        assert long in text, f"the rules have changed: no {long} in them"
        text = text.replace(long, short)
    return text
