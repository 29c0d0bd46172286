"""docs/metrics.md, made from the metrics and alerts themselves: `make crds` writes it, a test compares it."""

import sys
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.metrics import MetricWrapperBase

from . import metrics
from .agent import AgentMetrics
from .fleet import FAMILIES

HEAD = """# Metrics and alerts

Made by `make crds` from the definitions; a test compares them. A machine's own series are served only where the last
column says so, and the figures of the fleet only by the operator that leads.

## Operator

`careen operator --metrics-port PORT` serves these, and the process's own (`process_…`).

"""
AGENT = """
## Agent

`careen agent --metrics-port PORT` serves these on its machine, and the process's own.

"""
ALERTS = """
## Alerts

The rules are in [alerts.yaml](../charts/careen/files/alerts.yaml); Prometheus, 2.42 or newer, loads it as it is,
and the chart makes a PrometheusRule of it.

| alert | severity | after | says |
| --- | --- | --- | --- |
"""
DASHBOARD = """
## Dashboard

[dashboard.json](../charts/careen/files/dashboard.json), for Grafana; the chart puts it into a ConfigMap. This is
what it shows after `make demo`, as `make dashboard-picture` draws it:

![The dashboard after the demo](dashboard.svg)
"""
TABLE = "| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n"
PER_NODE = " Only with `--node-metrics`."

Row = tuple[str, str, tuple[str, ...], str]


def list_operator() -> list[Row]:
    """(name, type, labels, help) of all that the operator serves."""
    found = [_describe(value) for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)]
    return found + [(f.name, f.type, f.labels, f.help + (PER_NODE if f.per_node else "")) for f in FAMILIES]


def list_agent() -> list[Row]:
    """The same of the agent."""
    return [_describe(value) for value in vars(AgentMetrics()).values() if isinstance(value, MetricWrapperBase)]


def describe_metrics(rules: dict[str, Any]) -> str:
    """The page. rules: the document of the alert rules."""
    alerts = [_describe_alert(rule) for group in rules["groups"] for rule in group["rules"]]
    return HEAD + _table(list_operator()) + AGENT + _table(list_agent()) + ALERTS + "\n".join(alerts) + "\n" + DASHBOARD


def _table(rows: list[Row]) -> str:
    lines = (f"| `{name}` | {kind} | {', '.join(labels) or 'none'} | {text} |" for name, kind, labels, text in rows)
    return TABLE + "\n".join(sorted(lines)) + "\n"


def _describe(metric: MetricWrapperBase) -> Row:
    family = next(iter(metric.describe()))
    name = f"{family.name}_total" if family.type == "counter" else family.name
    return name, family.type, tuple(metric._labelnames), family.documentation


def _describe_alert(rule: dict[str, Any]) -> str:
    name = rule["alert"]
    severity, summary = rule["labels"]["severity"], rule["annotations"]["summary"]
    return f"| [{name}](runbooks/{name}.md) | {severity} | {rule.get('for', 'at once')} | {summary} |"


if __name__ == "__main__":
    document = yaml.safe_load(Path(sys.argv[2]).read_text(encoding="utf-8"))
    Path(sys.argv[1]).write_text(describe_metrics(document), encoding="utf-8")
