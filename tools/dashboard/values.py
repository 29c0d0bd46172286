"""Answers of Prometheus as series, tables and words."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .prometheus import Sample

HIDDEN = frozenset({"__name__", "instance", "job"})


@dataclass(frozen=True)
class Series:
    """A named line; of an instant query, one point."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Table:
    """Labels as columns."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def read_series(samples: Sequence[Sample], legend: str) -> list[Series]:
    """The series of an answer, by name; values that are no numbers are left out."""
    found = []
    for sample in samples:
        pairs = sample["values"] if "values" in sample else [sample["value"]]
        points = [(float(t), float(v)) for t, v in pairs if math.isfinite(float(v))]
        if points:
            found.append(Series(name_series(sample["metric"], legend), points))
    return sorted(found, key=lambda series: series.name)


def name_series(labels: dict[str, str], legend: str) -> str:
    """The legend with its labels filled in."""
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: labels.get(found.group(1), ""), legend)


def read_table(samples: Sequence[Sample], *, value: bool) -> Table:
    """One row a sample; `value`: with a last column for the value."""
    header = sorted({label for sample in samples for label in sample["metric"]} - HIDDEN)
    rows = [
        [sample["metric"].get(label, "") for label in header] + ([f"{float(sample['value'][1]):g}"] if value else [])
        for sample in samples
    ]
    return Table(header + ["machines"] * value, sorted(rows))


def show_value(value: float, defaults: dict[str, Any]) -> str:
    """A value in the panel's unit, as short as people need it."""
    match defaults.get("unit"):
        case "percent":
            return f"{value:.0f}%"
        case "bool_yes_no":
            return "Yes" if value else "No"
        case "s":
            return _show_seconds(value)
        case "bytes":
            return f"{value / 1048576:.1f} MiB"
        case "ops" | "reqps":
            return f"{value:.2g}/s"
        case _:
            return f"{value:.3g}"


def _show_seconds(value: float) -> str:
    if value < 1:
        return f"{value * 1000:.0f} ms"
    for unit, seconds in (("d", 86400), ("h", 3600), ("min", 60)):
        if value >= 2 * seconds:
            return f"{value / seconds:.1f} {unit}"
    return f"{value:.1f} s"
