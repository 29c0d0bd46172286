"""The alert rules under `promtool test rules`: each fires on its series, says whom it is about, and is silent else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from careen.api.reasons import Reason
from careen.observe.document import list_agent, list_operator
from dashboard.files import ALERTS, find_metrics, find_program, read_rules

RULES = read_rules()
ROLLOUT = ('careen_policy_rollout_info{policy="os",rollout="3-aa",version="2.1.0",wave="canary"}', "1x400")


def condition(name: str, reason: str, values: str) -> tuple[str, str]:
    return f'careen_policy_condition{{policy="os",condition="{name}",reason="{reason}"}}', values


def waiting(reason: str) -> list[tuple[str, str]]:
    return [condition("Waiting", reason, "1x400")]


def stuck(updates: str = "7x400", reason: str = "Paused") -> list[tuple[str, str]]:
    committed = ('careen_updates_total{policy="os",outcome="committed"}', updates)
    return [condition("Complete", "RollingOut", "0x400"), committed, *waiting(reason)]


def blocked(values: str) -> list[tuple[str, str]]:
    return [('careen_drain_blocked_pods{node="n1",pod_namespace="shop",budget="web"}', values)]


GUARDED = {"node": "n1", "pod_namespace": "shop", "budget": "web"}


FIRES: list[tuple[str, list[tuple[str, str]], str, dict[str, str], str]] = [
    ("CareenOperatorAbsent", [("careen_leader", "1x5 _x60")], "20m", {}, "has seen no operator that leads"),
    (
        "CareenPolicyHalted",
        [('careen_policy_halted{policy="os"}', "1x60"), ROLLOUT],
        "1m",
        {"policy": "os"},
        "Policy os has halted its rollout of 2.1.0 in wave canary.",
    ),
    (
        "CareenRolloutWaiting",
        waiting("LockMissing"),
        "61m",
        {"policy": "os", "condition": "Waiting"},
        "Nothing of policy os moves; it waits with reason LockMissing.",
    ),
    (
        "CareenRolloutStuck",
        stuck(),
        "1505m",
        {"policy": "os"},
        "none of its machines was updated in the last 24 hours; it waits with reason Paused.",
    ),
    (
        "CareenLockHeldTooLong",
        [('careen_lock_holder_since_timestamp_seconds{lock="default",holder="n1",by="alice"}', "0x200")],
        "121m",
        {"lock": "default", "holder": "n1", "by": "alice"},
        "n1 has held RebootLock default for 2h 1m 0s; it was given the lock by alice.",
    ),
    (
        "CareenDrainBlocked",
        blocked("2x60"),
        "21m",
        GUARDED,
        "Disruption budget shop/web keeps 2 pods on n1",
    ),
    # Given up after ten minutes, and begun again five minutes later.
    (
        "CareenDrainBlocked",
        blocked("2x10 stale _x4 2x30"),
        "21m",
        GUARDED,
        "Disruption budget shop/web keeps 2 pods on n1",
    ),
    (
        "CareenRolledBack",
        [('careen_rollbacks_total{policy="os",cause="Panic"}', "0 0 1x60")],
        "5m",
        {"policy": "os", "cause": "Panic"},
        "Under policy os a machine went back by itself; cause Panic.",
    ),
    (
        "CareenReleaseRejected",
        [('careen_policy_nodes{policy="os",state="failed"}', "3x60")],
        "6m",
        {"policy": "os", "state": "failed"},
        "3 machines of policy os have rejected its release",
    ),
    (
        "CareenReleaseUnresolved",
        [condition("ReleaseResolved", "TrustFailed", "0x60")],
        "31m",
        {"policy": "os", "condition": "ReleaseResolved", "reason": "TrustFailed"},
        "Policy os can't look up its release; reason TrustFailed.",
    ),
    (
        "CareenReleaseMetadataExpiring",
        [('careen_release_metadata_expiry_timestamp_seconds{repository="http://r"}', "36000x60")],
        "6m",
        {"repository": "http://r"},
        "The metadata of http://r expires in 9h 54m 0s.",
    ),
    (
        "CareenReleaseMetadataExpiring",
        [('careen_release_metadata_expiry_timestamp_seconds{repository="http://r"}', "60x60")],
        "6m",
        {"repository": "http://r"},
        "The metadata of http://r has expired.",
    ),
    # Another replica has taken over, after two minutes in which nobody led.
    (
        "CareenPolicyHalted",
        [
            ('careen_policy_halted{policy="os",pod="a"}', "1x10 stale"),
            ('careen_policy_halted{policy="os",pod="b"}', "_x13 1x60"),
        ],
        "12m",
        {"policy": "os"},
        "Policy os has halted its rollout.",
    ),
    (
        "CareenAgentSilent",
        [
            ('careen_agents{state="silent"}', "2x60"),
            ('careen_agent_last_seen_timestamp_seconds{node="n1"}', "0x60"),
            ('careen_agent_last_seen_timestamp_seconds{node="n2"}', "0x60"),
        ],
        "11m",
        {"state": "silent"},
        "2 agents are silent: n1, n2.",
    ),
    (
        "CareenUnitNotRun",
        [('careen_units{reason="NoPlace"}', "2x60"), ('careen_units{reason="Placed"}', "9x60")],
        "16m",
        {"reason": "NoPlace"},
        "2 units have condition Placed with reason NoPlace.",
    ),
    (
        "CareenUnitFailed",
        [('careen_unit_places{state="failed"}', "1x60"), ('careen_unit_places{state="active"}', "9x60")],
        "16m",
        {"state": "failed"},
        "1 units are failed where they were put.",
    ),
    (
        "CareenSlotUnsound",
        [
            ('careen_unsound_nodes{problem="OtherSlotNext"}', "1x60"),
            ('careen_node_unsound{node="n1",problem="OtherSlotNext"}', "1x60"),
        ],
        "16m",
        {"problem": "OtherSlotNext"},
        "1 machines have the problem OtherSlotNext: n1.",
    ),
]
SILENT: list[tuple[str, list[tuple[str, str]], str]] = [
    ("CareenOperatorAbsent", [('careen_leader{pod="a"}', "0x60"), ('careen_leader{pod="b"}', "1x60")], "30m"),
    ("CareenPolicyHalted", [('careen_policy_halted{policy="os"}', "0x60")], "30m"),
    ("CareenRolloutWaiting", waiting("LockMissing"), "59m"),
    ("CareenRolloutWaiting", waiting("WaveSoaking"), "300m"),
    ("CareenRolloutWaiting", waiting("Paused"), "300m"),
    ("CareenPolicyHalted", [('careen_policy_halted{policy="os"}', "1x10 0x60")], "17m"),
    # A machine every four hours.
    ("CareenRolloutStuck", stuck("0x47 1x47 2x47 3x47 4x47 5x47 6x47 7x47"), "1900m"),
    ("CareenRolloutStuck", stuck(reason="WaveSoaking"), "1900m"),
    (
        "CareenLockHeldTooLong",
        [('careen_lock_holder_since_timestamp_seconds{lock="default",holder="n1",by="operator"}', "0x200")],
        "119m",
    ),
    ("CareenDrainBlocked", blocked("2x10 stale"), "21m"),
    ("CareenDrainBlocked", blocked("2x30 stale"), "38m"),
    ("CareenRolledBack", [('careen_rollbacks_total{policy="os",cause="People"}', "0 0 1x60")], "5m"),
    ("CareenRolledBack", [('careen_rollbacks_total{policy="os",cause="Panic"}', "0 0 1x120")], "70m"),
    ("CareenReleaseUnresolved", [condition("ReleaseResolved", "Resolved", "1x60")], "40m"),
    (
        "CareenReleaseMetadataExpiring",
        [('careen_release_metadata_expiry_timestamp_seconds{repository="http://r"}', "90000x60")],
        "30m",
    ),
    (
        "CareenAgentSilent",
        [('careen_agents{state="silent"}', "0x60"), ('careen_agents{state="talking"}', "6x60")],
        "30m",
    ),
]


def run_promtool(folder: Path, alert: str, series: list[tuple[str, str]], at: str) -> subprocess.CompletedProcess[str]:
    """Say that the alert does not fire; promtool's answer. Only this rule is loaded, in steps of five minutes for one
    that takes a day."""
    step = "5m" if alert == "CareenRolloutStuck" else "1m"
    rules = folder / "rules.yaml"
    rules.write_text(yaml.safe_dump({"groups": [{"name": "careen", "rules": [RULES[alert]]}]}))
    test = {
        "interval": step,
        "input_series": [{"series": name, "values": values} for name, values in series],
        "alert_rule_test": [{"alertname": alert, "eval_time": at, "exp_alerts": []}],
    }
    path = folder / "rules_test.yaml"
    path.write_text(yaml.safe_dump({"rule_files": [str(rules)], "evaluation_interval": step, "tests": [test]}))
    command = [find_program("promtool"), "test", "rules", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_rule_file_is_sound() -> None:
    command = [find_program("promtool"), "check", "rules", str(ALERTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_every_alert_has_a_case() -> None:
    assert {case[0] for case in FIRES} == set(RULES)


@pytest.mark.parametrize(("alert", "series", "at", "labels", "says"), FIRES, ids=[case[0] for case in FIRES])
def test_alert_fires_and_says_whom_it_is_about(
    tmp_path: Path, alert: str, series: list[tuple[str, str]], at: str, labels: dict[str, str], says: str
) -> None:
    done = run_promtool(tmp_path, alert, series, at)
    assert done.returncode == 1, done.stdout + done.stderr
    told = done.stdout + done.stderr
    expected = {"alertname": alert} | labels | RULES[alert]["labels"]
    assert "got:[" in told.replace(" ", "").replace("\n", ""), told
    assert all(f'{name}="{value}"' in told for name, value in expected.items()), told
    assert says in told, told


@pytest.mark.parametrize(("alert", "series", "at"), SILENT)
def test_alert_is_silent(tmp_path: Path, alert: str, series: list[tuple[str, str]], at: str) -> None:
    done = run_promtool(tmp_path, alert, series, at)
    assert done.returncode == 0, done.stdout + done.stderr


def test_reasons_in_the_rules_exist() -> None:
    text = ALERTS.read_text()
    named = {"WaveSoaking", "Paused", "ClusterPaused", "LockPaused", "RolloutHalted", "NoMachines"}
    named |= {"TrustFailed", "ReleaseUnavailable"}
    assert all(name in text for name in named)
    assert named <= {str(reason) for reason in Reason}


def test_rules_use_only_metrics_that_exist() -> None:
    known = {row[0] for row in [*list_operator(), *list_agent()]}
    for rule in RULES.values():
        asked = rule["expr"] + rule["annotations"]["description"]
        assert find_metrics(asked) <= known, rule["alert"]
