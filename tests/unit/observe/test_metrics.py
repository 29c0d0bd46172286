"""The metrics' page, and what an exposition says."""

import threading
from pathlib import Path

import pytest
import yaml
from prometheus_client import generate_latest

from careen.observe import metrics
from careen.observe.agent import AgentMetrics, MachineFigures, SlotFigures
from careen.observe.document import describe_metrics, list_agent, list_operator
from careen.observe.fleet import FAMILIES, FleetCollector

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "metrics.md"
ALERTS = ROOT / "charts" / "careen" / "files" / "alerts.yaml"


def expose() -> str:
    return generate_latest(metrics.REGISTRY).decode()


@pytest.fixture(autouse=True)
def _own_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics.FLEET, "source", dict)


def test_page_is_what_metrics_and_alerts_say() -> None:
    rules = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))
    assert PAGE.read_text(encoding="utf-8") == describe_metrics(rules), "run `make crds`"


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    rules = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    assert {path.stem for path in (ROOT / "docs" / "runbooks").glob("*.md")} == {rule["alert"] for rule in alerts}
    for rule in alerts:
        assert rule["annotations"]["runbook_url"].endswith(f"/docs/runbooks/{rule['alert']}.md")


def test_names_and_types_keep_the_rules_of_prometheus() -> None:
    for name, kind, labels, text in [*list_operator(), *list_agent()]:
        assert name.startswith("careen_"), name
        assert name.endswith("_total") == (kind == "counter"), name
        assert text.endswith("."), name
        assert kind != "histogram" or name.endswith("_seconds"), name
        assert not {"instance", "job", "pod", "namespace", "le"} & set(labels), name


def test_the_fleet_is_what_its_source_says_now() -> None:
    metrics.FLEET.source = lambda: {"careen_blocked_nodes": {("workers", "LockFull"): 3}}
    assert 'careen_blocked_nodes{policy="workers",reason="LockFull"} 3.0' in expose()
    metrics.FLEET.source = lambda: {"careen_blocked_nodes": {("workers", "Paused"): 1}}
    assert "LockFull" not in expose()
    metrics.FLEET.source = dict
    assert "careen_blocked_nodes" not in expose()
    assert len(FleetCollector().describe()) == len(FAMILIES)


def test_a_policys_counters_begin_at_0_and_go_with_it() -> None:
    metrics.expect_policy("workers")
    assert 'careen_rollbacks_total{cause="Panic",policy="workers"} 0.0' in expose()
    metrics.record_update("workers", "Panic")
    metrics.record_update("workers", None)
    text = expose()
    assert 'careen_rollbacks_total{cause="Panic",policy="workers"} 1.0' in text
    assert 'careen_updates_total{outcome="committed",policy="workers"} 1.0' in text
    metrics.forget_policy("workers")
    assert "workers" not in expose()


def test_a_deleted_lock_leaves_no_series() -> None:
    metrics.expect_lock("spare")
    metrics.record_wait("spare", 1.0)
    metrics.record_handover("spare", 0.1)
    assert 'careen_lock_handover_seconds_count{lock="spare"} 1.0' in expose()
    metrics.forget_lock("spare")
    assert '"spare"' not in expose()


def test_an_agent_shows_its_machine_as_it_is_now() -> None:
    agent = AgentMetrics()
    slots = {"A": SlotFigures("1.0.0", 2, 0, True), "B": SlotFigures("2.0.0", 3, 1, False)}
    agent.show(MachineFigures(slots, "A", "Firmware", "Staged", 0, unhealthy=False))
    agent.show(MachineFigures(slots, "B", "Kexec", "Verifying", 1, unhealthy=True))
    text = generate_latest(agent.registry).decode()
    assert 'careen_agent_phase{phase="Verifying"} 1.0' in text
    assert 'phase="Staged"' not in text
    assert 'method="Firmware"' not in text
    assert 'careen_agent_slot_booted{slot="B"} 1.0' in text
    assert 'careen_agent_slot_tries_left{slot="B"} 1.0' in text
    assert "careen_agent_unhealthy 1.0" in text


def test_a_slot_that_is_gone_is_shown_no_longer() -> None:
    agent = AgentMetrics()
    slots = {"A": SlotFigures("1.0.0", 2, 0, True), "B": SlotFigures("2.0.0", 3, 1, False)}
    agent.show(MachineFigures(slots, "A", "Firmware", "Staged", 0, unhealthy=False))
    agent.show(MachineFigures({"A": slots["A"]}, "A", "Firmware", "Staged", 0, unhealthy=False))
    text = generate_latest(agent.registry).decode()
    assert 'slot="A"' in text
    assert 'slot="B"' not in text


def test_no_scrape_finds_a_machine_without_a_phase() -> None:
    agent, ended, bare = AgentMetrics(), threading.Event(), []

    def scrape() -> None:
        while not ended.is_set():
            if "careen_agent_phase{" not in generate_latest(agent.registry).decode():
                bare.append(True)

    slots = {"A": SlotFigures("1.0.0", 2, 0, True)}
    agent.show(MachineFigures(slots, "A", "Firmware", "Idle", 0, unhealthy=False))
    scraper = threading.Thread(target=scrape)
    scraper.start()
    try:
        for turn in range(3000):
            agent.show(MachineFigures(slots, "A", "Firmware", ("Idle", "Staged")[turn % 2], 0, unhealthy=False))
    finally:
        ended.set()
        scraper.join()
    assert not bare


def test_two_agents_in_one_process_count_apart() -> None:
    one, other = AgentMetrics(), AgentMetrics()
    one.record_renewal(1.9e9)
    assert 'renewals_total{outcome="done"} 1.0' in generate_latest(one.registry).decode()
    assert 'renewals_total{outcome="done"} 0.0' in generate_latest(other.registry).decode()
