"""Helm, with a home of its own, on one cluster or on none."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "charts" / "careen"
RELEASE, NAMESPACE = "careen", "careen-system"


class HelmError(Exception):
    """What Helm said when it failed."""


class Helm:
    """Runs the helm program. Nothing is read from, or left in, the user's own settings of Helm."""

    def __init__(self, program: Path, home: Path, kubeconfig: Path | None = None) -> None:
        self._program = program
        folders = {f"HELM_{name}_HOME": str(home / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
        self._environment = os.environ | folders | {"KUBECACHEDIR": str(home / "kube"), "HOME": str(home)}
        self._environment["KUBECONFIG"] = str(kubeconfig or os.devnull)

    def run(self, *arguments: str | Path) -> str:
        """Run Helm in the release's namespace and return what it printed; HelmError if it fails."""
        command = [str(self._program), "--namespace", NAMESPACE, *map(str, arguments)]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False, timeout=280)
        if done.returncode != 0:
            raise HelmError(f"helm {' '.join(command[3:])}: {done.stdout}{done.stderr}")
        return done.stdout

    def template(self, *arguments: str | Path, chart: Path = CHART) -> list[dict[str, Any]]:
        """The documents that the chart becomes."""
        text = self.run("template", RELEASE, chart, *arguments)
        return [document for document in yaml.safe_load_all(text) if document]


def find(documents: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """The document of this kind and name; StopIteration if there is none."""
    return next(each for each in documents if (each["kind"], each["metadata"]["name"]) == (kind, name))
