"""`python -m dashboard FILE.svg`: play the demo, and draw the dashboard from the Prometheus that watched it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from .drawing import draw_dashboard
from .files import DASHBOARD, list_queries
from .values import Series, Table, read_series, read_table
from .watched import Watched, watch_demo

RATE_SECONDS = 10


def ask_panel(watched: Watched, panel: dict[str, Any]) -> list[Series] | Table:
    """The answers to a panel's queries over the whole demo."""
    queries = list_queries(panel, range_seconds=int(watched.ended - watched.started) + 1, rate_seconds=RATE_SECONDS)
    if panel["type"] == "table":
        asked = queries[0].expression
        return read_table(watched.prometheus.query(asked), value="sum" in asked)
    found: list[Series] = []
    for query in queries:
        if query.instant:
            samples = watched.prometheus.query(query.expression)
        else:
            samples = watched.prometheus.query_range(query.expression, watched.started, watched.ended, 1.0)
        found += read_series(samples, query.legend)
    return found


def main() -> None:
    """Write the picture."""
    document = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    with watch_demo(print) as watched:
        picture = draw_dashboard(document, lambda panel: ask_panel(watched, panel))
    Path(sys.argv[1]).write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
