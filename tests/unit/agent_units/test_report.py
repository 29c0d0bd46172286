"""What status.units says, and when it is written."""

from __future__ import annotations

from typing import Any

from careen.agent.units.report import (
    MAX_MESSAGE,
    Pace,
    Pacer,
    list_done,
    normalize,
    report_blindness,
    report_units,
)
from careen.agent.units.sight import Launch, Order, Orders, Sight, UnitState
from careen.api.held import MOST_UNITS, UnitReport

RUNNING = UnitState("loaded", "active", "running", "/run/careen/units/x", ours=True)
HASH, OTHER = "a" * 40, "b" * 40


def order(name: str, desired: Any = "launched") -> Order:
    return Order(name, "object", HASH, desired)


def test_reports_are_what_the_kind_takes() -> None:
    sight = Sight(
        {"a.service": HASH, "old.service": OTHER},
        {"a.service": RUNNING},
        {"a.service": Launch(HASH), "old.service": Launch(HASH)},
    )
    orders = Orders((order("a.service"), order("b.service")), {"c.service": "spec.units desiredState: not one"})
    told = [UnitReport.model_validate(each) for each in report_units(orders, sight, {"b.service": "x" * 5000})]
    assert [each.name for each in told] == ["a.service", "b.service", "c.service", "old.service"]
    assert [each.launched for each in told] == [True, False, False, False]
    assert len(told[1].message or "") == MAX_MESSAGE
    assert "desiredState" in (told[2].message or "")


def test_a_removal_is_acknowledged_when_nothing_of_ours_is_left() -> None:
    own = UnitState("loaded", "active", "running", "/usr/lib/systemd/system/x")
    orders = Orders((order("a.service", "removed"),))
    (gone,) = report_units(orders, Sight({}, {"a.service": own}, {}), {})
    assert ("hash" in gone, gone["active"]) == (False, "inactive"), "the machine's own unit is no business of ours"
    lost = UnitState("not-found", "active", "running")
    (there,) = report_units(orders, Sight({}, {"a.service": lost}, {"a.service": Launch(HASH)}), {})
    assert there["active"] == "active", "its file is gone, and it runs"


def test_a_start_that_failed_is_told_until_the_unit_runs() -> None:
    launches = {"a.service": Launch(HASH, "its start ended with failed")}
    orders = Orders((order("a.service"),))
    failed = UnitState("loaded", "failed", "failed", "/run/careen/units/x", ours=True)
    (told,) = report_units(orders, Sight({"a.service": HASH}, {"a.service": failed}, launches), {})
    assert told["message"] == "its start ended with failed"
    (told,) = report_units(orders, Sight({"a.service": HASH}, {"a.service": RUNNING}, launches), {})
    assert "message" not in told


def test_there_are_never_more_reports_than_the_kind_takes_and_ordered_ones_come_first() -> None:
    held = {f"held-{number}.service": HASH for number in range(MOST_UNITS)}
    orders = Orders(tuple(order(f"z-{number:03}.service") for number in range(MOST_UNITS - 5)))
    told = report_units(orders, Sight(held, {}, {}), {})
    assert len(told) == MOST_UNITS
    assert {each.name for each in orders.listed} <= {each["name"] for each in told}


def test_what_was_known_stands_while_systemd_cannot_be_asked() -> None:
    before = [{"name": "a.service", "hash": HASH, "load": "loaded", "active": "active", "sub": "running"}]
    told = report_blindness(Orders((order("a.service"), order("b.service"))), before, "no bus", {})
    assert told[0] == {**before[0], "launched": False, "message": "no bus"}
    assert (told[1]["load"], told[1]["message"]) == ("error", "no bus")


def test_no_removal_counts_as_done_while_it_is_not_known() -> None:
    orders = Orders((order("a.service", "removed"), order("b.service", "removed")))
    told = report_blindness(orders, None, "no bus", {"a.service": OTHER})
    assert [each.get("hash") for each in told] == [OTHER, None], "of b nothing is on the machine"
    told = report_blindness(orders, None, "no bus", None)
    assert [each.get("hash") for each in told] == [HASH, HASH]


def wanted(number: int) -> list[dict[str, Any]]:
    return [{"name": "a.service", "load": "loaded", "active": "active", "sub": str(number), "launched": True}]


def test_changes_are_written_when_they_have_settled() -> None:
    pacer = Pacer(Pace(quiet=0.4, longest=1.5, burst=6, interval=10.0))
    assert pacer.due(wanted(1), [], 100.0) == 100.4
    assert pacer.due(wanted(1), [], 100.2) == 100.4
    assert pacer.due(wanted(2), [], 100.3) == 100.7
    assert pacer.due(wanted(3), [], 101.3) == 101.5, "but no later than 1.5 s after the first"
    assert pacer.due([], [], 101.4) is None
    assert pacer.due(wanted(4), [], 110.0) == 110.4, "a change that was undone is forgotten"


def test_after_a_burst_writes_are_far_between() -> None:
    pacer = Pacer(Pace(quiet=0.0, longest=0.0, burst=3, interval=10.0))
    written, now, writes = [], 100.0, 0
    while now < 160.0:
        due = pacer.due(wanted(round(now * 10)), written, now)
        assert due is not None
        if due <= now:
            pacer.spend(now)
            writes += 1
        now += 0.1
    assert 3 + 5 <= writes <= 3 + 6


def test_what_somebody_waits_for_is_written_all_the_same() -> None:
    pacer = Pacer(Pace(quiet=0.4, longest=1.5, burst=1, interval=10.0))
    pacer.due(wanted(1), [], 100.0)
    for _ in range(5):
        pacer.spend(100.4)
    assert pacer.due(wanted(2), [], 100.5, pressing=True) == 100.9
    assert pacer.due(wanted(2), [], 100.5) == 110.4, "and costs the rest no more than ten seconds"


def test_an_order_is_done_when_its_machine_is_as_ordered() -> None:
    running = {"name": "a.service", "hash": HASH, "load": "loaded", "active": "active", "launched": True}
    ended = {**running, "active": "failed"}
    stopped = {**running, "active": "inactive", "launched": False}
    gone = {"name": "a.service", "load": "not-found", "active": "inactive", "launched": False}
    for desired, done in {"launched": [running, ended], "loaded": [stopped, ended], "removed": [gone]}.items():
        orders = Orders((order("a.service", desired),))
        starting = {**running, "active": "activating"}
        for report in (running, ended, stopped, gone, starting, {**running, "hash": OTHER}):
            assert bool(list_done(orders, [report])) == (report in done), (desired, report)
    assert not list_done(Orders((order("b.service"),)), [running])


def test_what_the_api_server_leaves_out_is_no_change() -> None:
    assert normalize([{"name": "a.service"}]) == [{"name": "a.service", "launched": False}]
    assert normalize(None) == []
