"""The pass: from orders and what is there to operations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from careen.agent.units.decision import Load, Plan, Reload, Start, Stop, Unload, decide, find_wanted
from careen.agent.units.report import report_units
from careen.agent.units.sight import ABSENT, Launch, Order, Orders, Sight, UnitState, read_orders
from careen.units.file import unit_hash

WEB = "[Service]\nExecStart=/bin/sleep 1\n"
NEW = "[Service]\nExecStart=/bin/sleep 2\n"
ENABLED = f"{WEB}\n[Install]\nWantedBy=multi-user.target\n"
RUNNING = UnitState("loaded", "active", "running", "/run/careen/units/web.service", ours=True)
STOPPED = UnitState("loaded", "inactive", "dead", "/run/careen/units/web.service", ours=True)
FAILED = UnitState("loaded", "failed", "failed", "/run/careen/units/web.service", ours=True)
OWN = UnitState("loaded", "active", "running", "/usr/lib/systemd/system/web.service")


def order(desired: str, text: str = WEB, name: str = "web.service") -> Order:
    return Order(name, name.replace("@", "-").removesuffix(".service"), unit_hash(text), desired)  # type: ignore[arg-type]


def see(
    held: str | None = None,
    state: UnitState = ABSENT,
    launched: str | None = None,
    *,
    stopping: Iterable[str] = (),
    unread: bool = False,
) -> Sight:
    name = "web.service"
    return Sight(
        {name: unit_hash(held)} if held else {},
        {name: state},
        {name: Launch(unit_hash(launched))} if launched else {},
        unread=unread,
        stopping=frozenset(stopping),
    )


def plan(one: Order, sight: Sight, *texts: str, waiting: Iterable[str] = ()) -> list[str]:
    """The operations by their names."""
    made = decide((one,), {unit_hash(text): text for text in texts}, sight, frozenset(waiting))
    return [type(each).__name__ for each in made.operations]


@pytest.mark.parametrize(
    ("one", "sight", "expected"),
    [
        (order("loaded"), see(), ["Load", "Reload"]),
        (order("launched"), see(), ["Load", "Reload", "Start"]),
        (order("launched"), see(WEB, STOPPED), ["Start"]),
        (order("launched"), see(WEB, RUNNING, WEB), []),
        (order("loaded"), see(WEB, STOPPED), []),
        (order("loaded"), see(WEB, RUNNING, WEB), ["Stop"]),
        (order("removed"), see(), []),
        (order("removed"), see(WEB, STOPPED), ["Unload", "Reload"]),
        (order("removed"), see(WEB, RUNNING, WEB), ["Stop"]),
        (order("launched", NEW), see(WEB, STOPPED, WEB), ["Unload", "Load", "Reload", "Start"]),
        (order("launched", NEW), see(WEB, RUNNING, WEB), ["Stop"]),
        (order("loaded", NEW), see(WEB, STOPPED), ["Unload", "Load", "Reload"]),
    ],
)
def test_each_order_meets_each_machine(one: Order, sight: Sight, expected: list[str]) -> None:
    """fleet's table of desired and current states."""
    assert plan(one, sight, WEB, NEW) == expected


def test_the_operations_of_many_units_are_done_by_kind() -> None:
    names = ["a.service", "b.service", "c.service", "d.service"]
    orders = (
        order("removed", name="a.service"),
        order("launched", name="b.service"),
        order("loaded", name="c.service"),
        order("launched", NEW, name="d.service"),
    )
    web, new = unit_hash(WEB), unit_hash(NEW)
    sight = Sight(
        dict.fromkeys(("a.service", "c.service", "d.service"), web),
        {name: RUNNING if name == "c.service" else STOPPED for name in names},
        {"c.service": Launch(web)},
    )
    made = decide(orders, {web: WEB, new: NEW}, sight, frozenset())
    assert made.operations == (
        Unload("a.service"),
        Unload("d.service"),
        Load("b.service", WEB, install=False),
        Load("d.service", NEW, install=False),
        Reload(),
        Stop("c.service"),
        Start("b.service", web),
        Start("d.service", new),
    )


def test_a_unit_that_has_ended_or_failed_is_not_started_again() -> None:
    assert plan(order("launched"), see(WEB, STOPPED, WEB)) == []
    assert plan(order("launched"), see(WEB, FAILED, WEB)) == []


def test_a_unit_that_was_stopped_is_started_again_when_it_is_ordered_again() -> None:
    assert plan(order("launched"), see(WEB, STOPPED, None)) == ["Start"]


def test_a_unit_whose_stop_nobody_saw_the_end_of_is_started_again_when_it_is_ordered_again() -> None:
    name = "web.service"
    for state in (STOPPED, RUNNING):
        sight = replace(see(WEB, state), launches={name: Launch(unit_hash(WEB), stopping=True)})
        assert plan(order("launched"), sight) == ["Start"]
        assert plan(order("launched"), replace(sight, stopping=frozenset({name}))) == []
        assert plan(order("loaded"), sight) == ["Stop"]


def test_what_no_order_names_is_left_alone() -> None:
    assert decide((), {}, see(WEB, RUNNING, WEB), frozenset()) == Plan()
    assert plan(order("launched", name="other.service"), see(WEB, RUNNING, WEB)) == []


def test_a_unit_runs_on_until_its_new_content_is_at_hand() -> None:
    assert plan(order("launched", NEW), see(WEB, RUNNING, WEB), WEB) == []


def test_a_failed_stop_keeps_the_file() -> None:
    """It still runs after that: the next try stops it again, and takes nothing away."""
    assert plan(order("removed"), see(WEB, RUNNING, WEB)) == ["Stop"]
    assert plan(order("removed"), see(WEB, RUNNING, WEB), waiting=["web.service"]) == []


def test_a_unit_is_not_stopped_twice_at_a_time() -> None:
    going = UnitState("loaded", "deactivating", "stop-sigterm", RUNNING.fragment, ours=True)
    assert plan(order("removed"), see(WEB, going, WEB, stopping=["web.service"])) == []


def test_a_unit_that_failed_on_its_way_down_is_taken_away() -> None:
    assert plan(order("removed"), see(WEB, FAILED, WEB)) == ["Unload", "Reload"]


def test_a_unit_that_its_socket_or_timer_runs_stays_up_while_it_is_to_be_loaded() -> None:
    assert plan(order("loaded"), see(WEB, RUNNING, None)) == []


def test_a_file_that_was_lost_is_written_again_and_what_runs_is_not_touched() -> None:
    lost = UnitState("loaded", "active", "running", RUNNING.fragment, ours=True)
    assert plan(order("launched"), see(None, lost, WEB), WEB) == ["Load", "Reload"]


def test_a_unit_whose_file_was_lost_can_still_be_removed() -> None:
    lost = UnitState("not-found", "active", "running")
    assert plan(order("removed"), see(None, lost, WEB)) == ["Stop"]
    assert plan(order("removed"), see(None, ABSENT, WEB)) == ["Unload", "Reload"]


@pytest.mark.parametrize("state", [RUNNING, UnitState("not-found", "active", "running")])
def test_when_files_and_memory_were_lost_what_runs_goes_on(state: UnitState) -> None:
    """Somebody emptied the agent's folder: no order says that anything is to be stopped."""
    assert plan(order("launched"), see(None, state), WEB) == ["Load", "Reload", "Start"]
    assert plan(order("loaded"), see(None, state), WEB) == ["Load", "Reload"]


def test_what_runs_without_a_file_is_stopped_when_it_is_to_be_removed() -> None:
    orphan = see(None, UnitState("not-found", "active", "running"))
    assert plan(order("removed"), orphan) == ["Stop"]
    (report,) = report_units(Orders((order("removed"),)), orphan, {})
    assert report["active"] == "active", "no removal counts as done while it runs"


def test_a_unit_with_install_is_enabled() -> None:
    made = decide((order("loaded", ENABLED),), {unit_hash(ENABLED): ENABLED}, see(), frozenset())
    assert made.operations[0] == Load("web.service", ENABLED, install=True)


def test_the_machines_own_unit_is_neither_hidden_nor_stopped() -> None:
    made = decide((order("launched"),), {unit_hash(WEB): WEB}, see(None, OWN), frozenset())
    assert made.operations == ()
    assert "/usr/lib/systemd/system/web.service" in made.refusals["web.service"]
    assert plan(order("removed"), see(None, OWN)) == []
    assert plan(order("removed"), see(WEB, OWN)) == ["Unload", "Reload"]


def test_a_mount_that_was_there_before_is_not_undone() -> None:
    mounted = UnitState("loaded", "active", "mounted")
    assert plan(order("removed"), see(None, mounted)) == []


def test_a_template_is_refused() -> None:
    one = order("launched", name="web@.service")
    made = decide((one,), {one.hash: WEB}, Sight({}, {}, {}), frozenset())
    assert made.operations == ()
    assert "template" in made.refusals["web@.service"]


def test_files_that_systemd_has_not_read_are_read_even_when_nothing_else_is_to_be_done() -> None:
    """The agent died between writing files and telling systemd."""
    assert plan(order("loaded"), see(WEB, STOPPED, unread=True)) == ["Reload"]
    assert plan(order("launched"), see(WEB, STOPPED, unread=True)) == ["Reload", "Start"]


def test_nothing_is_started_while_systemd_is_not_asked_to_read_what_it_could_not() -> None:
    one, sight = order("launched"), replace(see(WEB, STOPPED, unread=True), unreadable="no space")
    made = decide((one,), {}, sight, frozenset())
    assert made.operations == ()
    assert "no space" in made.refusals["web.service"]
    assert plan(order("loaded"), replace(see(WEB, RUNNING, WEB, unread=True), unreadable="no space")) == ["Stop"]


def test_only_contents_that_are_missing_are_asked_for() -> None:
    orders = (order("launched"), order("launched", NEW), order("removed", NEW))
    assert find_wanted(orders, see(WEB, STOPPED)) == [orders[1]]


def test_a_file_that_systemd_does_not_find_is_linked_again() -> None:
    """The agent died between writing the file and linking it, or somebody has taken the link away."""
    assert plan(order("launched"), see(WEB, ABSENT), WEB) == ["Load", "Reload", "Start"]
    unlinked = UnitState("not-found", "active", "running")
    assert plan(order("launched"), see(WEB, unlinked, WEB), WEB) == ["Load", "Reload"]


def test_an_entry_that_cannot_be_read_is_told_and_no_other_suffers() -> None:
    good = {"name": "web.service", "unit": "web", "hash": unit_hash(WEB), "desiredState": "loaded"}
    found = read_orders([{**good, "name": "b.service", "desiredState": "frozen"}, good, "nonsense"])
    assert [each.name for each in found.listed] == ["web.service"]
    assert "desiredState" in found.unreadable["b.service"]
    assert read_orders(None).listed == ()
