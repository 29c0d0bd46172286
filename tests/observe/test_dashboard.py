"""The dashboard: it asks only for what exists, and after the demo every question has an answer."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any
from urllib.request import urlopen

import pytest

from careen.observe.document import list_agent, list_operator
from dashboard.drawing import draw_dashboard
from dashboard.files import DASHBOARD, Query, find_metrics, find_program, list_queries
from dashboard.values import Series, Table
from dashboard.watched import Watched, watch_demo

DOCUMENT: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
# The first test of the demo plays it, with a control plane to start before; it takes a minute on two quiet processors.
pytestmark = pytest.mark.timeout(900)
PANELS = [panel for panel in DOCUMENT["panels"] if panel["type"] != "row"]


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    with watch_demo() as watched:
        yield watched


def read_text(port: int) -> str:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def test_queries_use_only_metrics_that_exist() -> None:
    known = {row[0] for row in [*list_operator(), *list_agent()]}
    for panel in PANELS:
        for query in list_queries(panel, range_seconds=60, rate_seconds=10):
            asked = find_metrics(query.expression)
            assert asked, query
            assert asked <= known, query


def test_every_metric_of_the_minimum_is_shown_somewhere() -> None:
    text = DASHBOARD.read_text(encoding="utf-8")
    for name in (
        "version_nodes",
        "blocked_nodes",
        "lock_holders",
        "update_duration",
        "rollbacks",
        "node_info",
    ):
        assert f"careen_{name}" in text


def test_panels_have_places_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DOCUMENT["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DOCUMENT["panels"]}) == len(DOCUMENT["panels"])


def test_picture_shows_every_panel() -> None:
    def answer(panel: dict[str, Any]) -> list[Series] | Table:
        if panel["type"] == "table":
            return Table(["node"], [["m<1>"]])
        return [Series("a", [(0.0, 1.0), (1.0, 2.0)]), Series("b", [(0.0, 0.0)])]

    picture = draw_dashboard(DOCUMENT, answer)
    assert all(panel["title"].split(",")[0] in picture for panel in PANELS)
    assert "m&lt;1&gt;" in picture
    assert "m<1>" not in picture


@pytest.mark.slow
def test_demo_went_well_and_everybody_is_scraped_at_its_end(watched: Watched) -> None:
    assert watched.result.ok, watched.result
    assert watched.prometheus.find_down() == []


@pytest.mark.slow
@pytest.mark.parametrize("panel", PANELS, ids=[panel["title"] for panel in PANELS])
def test_every_query_has_an_answer_after_the_demo(watched: Watched, panel: dict[str, Any]) -> None:
    span = int(watched.ended - watched.started) + 1
    for query in list_queries(panel, range_seconds=span, rate_seconds=10):
        assert has_answer(watched, query), query


def has_answer(watched: Watched, query: Query) -> bool:
    if query.instant:
        samples = watched.prometheus.query(query.expression)
        return any(sample["value"][1] != "NaN" for sample in samples)
    samples = watched.prometheus.query_range(query.expression, watched.started, watched.ended, 1.0)
    return any(value != "NaN" for sample in samples for _, value in sample["values"])


@pytest.mark.slow
@pytest.mark.parametrize("who", ["operator", "agent"])
def test_live_exposition_is_sound(watched: Watched, who: str) -> None:
    port = watched.operator_port if who == "operator" else watched.agent_ports[0]
    command = [find_program("promtool"), "check", "metrics"]
    done = subprocess.run(command, input=read_text(port), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_phases_of_the_demo_were_timed(watched: Watched) -> None:
    counted = watched.prometheus.query("sum by (phase) (careen_update_duration_seconds_count)")
    phases = {sample["metric"]["phase"]: float(sample["value"][1]) for sample in counted}
    passed = {"staging", "waiting", "draining", "activating", "verifying", "returning"}
    assert {phase for phase, count in phases.items() if count > 0} >= passed, phases
    rollbacks = watched.prometheus.query('sum(careen_rollbacks_total{cause="Panic"})')
    assert float(rollbacks[0]["value"][1]) == watched.result.broken.rolled_back
    committed = watched.prometheus.query('sum(careen_updates_total{outcome="committed"})')
    assert float(committed[0]["value"][1]) == watched.result.good.updated
