"""docs/metrics.md, made from the metrics themselves: `make crds` writes it, a test compares it."""

import sys
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from . import metrics

HEAD = """# Metrics

Served by `careen operator --metrics-port PORT`. Made by `make crds` from the definitions; a test compares them.

| metric | type | labels | meaning |
| --- | --- | --- | --- |
"""


def describe_metrics() -> str:
    """The page."""
    found = [value for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)]
    rows = [_describe(metric) for metric in found]
    rows.append("| `careen_build_info` | info | version | Version of this process. |")
    return HEAD + "\n".join(sorted(rows)) + "\n"


def _describe(metric: MetricWrapperBase) -> str:
    family = next(iter(metric.describe()))
    name = f"{family.name}_total" if family.type == "counter" else family.name
    labels = ", ".join(metric._labelnames) or "none"
    return f"| `{name}` | {family.type} | {labels} | {family.documentation} |"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(describe_metrics(), encoding="utf-8")
