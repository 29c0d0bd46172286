"""The pass over a machine's units, with a systemd that only keeps books: whatever is ordered, and whatever fails."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from careen.agent.units.decision import Load, Reload, Start, Stop, Unload, decide, find_wanted
from careen.agent.units.hands import Hands
from careen.agent.units.shelf import MemoryShelf
from careen.agent.units.sight import Launch, Order, Sight, UnitState
from careen.agent.units.simulated import SimulatedSystemd
from careen.agent.units.systemd import UnitHost
from careen.units.file import hash_text

NAMES = ("a.service", "b.service", "c.timer", "d@1.service")
TEXTS = tuple(f"[Service]\nExecStart=/bin/{word}\n" for word in ("web", "false", "true"))
TEXT = {hash_text(text): text for text in TEXTS}
STATES = (
    UnitState("not-found", "inactive", "dead"),
    UnitState("not-found", "active", "running"),
    UnitState("loaded", "inactive", "dead", "/run/careen/units/x", ours=True),
    UnitState("loaded", "active", "running", "/run/careen/units/x", ours=True),
    UnitState("loaded", "failed", "failed", "/run/careen/units/x", ours=True),
    UnitState("loaded", "deactivating", "stop-sigterm", "/run/careen/units/x", ours=True),
    UnitState("loaded", "active", "running", "/usr/lib/systemd/system/x"),
    UnitState("bad-setting", "inactive", "dead", "/run/careen/units/x", ours=True),
)
hashes = st.sampled_from(sorted(TEXT))
orders = st.lists(
    st.builds(
        Order,
        st.sampled_from(NAMES),
        st.just("object"),
        hashes,
        st.sampled_from(("loaded", "launched", "removed")),
    ),
    unique_by=lambda each: each.name,
    max_size=len(NAMES),
).map(lambda found: tuple(sorted(found, key=lambda each: each.name)))
sights = st.builds(
    Sight,
    st.dictionaries(st.sampled_from(NAMES), hashes),
    st.fixed_dictionaries({name: st.sampled_from(STATES) for name in NAMES}),
    st.dictionaries(st.sampled_from(NAMES), hashes.map(Launch)),
    st.booleans(),
    st.frozensets(st.sampled_from(NAMES)),
)


@settings(deadline=None)
@given(orders, sights, st.sets(st.sampled_from(sorted(TEXT))))
def test_what_no_order_names_is_never_touched(listed: tuple[Order, ...], sight: Sight, known: set[str]) -> None:
    plan = decide(listed, {key: TEXT[key] for key in known}, sight, frozenset())
    named = {each.name for each in plan.operations if not isinstance(each, Reload)} | plan.refusals.keys()
    assert named <= {each.name for each in listed}


@settings(deadline=None)
@given(orders, sights)
def test_nothing_is_stopped_or_taken_away_but_by_an_order_that_says_so(listed: tuple[Order, ...], sight: Sight) -> None:
    plan = decide(listed, TEXT, sight, frozenset())
    ordered = {each.name: each for each in listed}
    for each in plan.operations:
        if isinstance(each, Stop | Unload):
            order, state = ordered[each.name], sight.state(each.name)
            launched = each.name in sight.launches
            assert (
                order.desired == "removed"
                or sight.held.get(each.name) != order.hash
                or (order.desired == "loaded" and launched)
            )
            assert isinstance(each, Stop) or not (state.running and state.ours), "a file goes when its unit is down"


@settings(deadline=None)
@given(orders, sights)
def test_operations_come_by_kind_and_files_are_read_before_a_start(listed: tuple[Order, ...], sight: Sight) -> None:
    kinds = [type(each) for each in decide(listed, TEXT, sight, frozenset()).operations]
    assert kinds == sorted(kinds, key=[Unload, Load, Reload, Stop, Start].index)
    assert kinds.count(Reload) == int(sight.unread or Load in kinds or Unload in kinds)


@settings(deadline=None)
@given(orders, sights)
def test_a_start_is_of_what_is_held_or_will_be(listed: tuple[Order, ...], sight: Sight) -> None:
    plan = decide(listed, TEXT, sight, frozenset())
    loaded = {each.name: hash_text(each.text) for each in plan.operations if isinstance(each, Load)}
    for each in plan.operations:
        if isinstance(each, Start):
            assert loaded.get(each.name, sight.held.get(each.name)) == each.hash


class _Machine:
    """A machine with its keeper's hands, and none of the waiting."""

    def __init__(self) -> None:
        self.shelf = MemoryShelf()
        self.systemd = SimulatedSystemd(self.shelf)
        self.hands = Hands(UnitHost(self.shelf, self.systemd), "m", lambda *_: None, lambda: None)

    async def take_turn(self, listed: tuple[Order, ...]) -> int:
        """One pass; how many operations there were."""
        shelved = self.shelf.look()
        names = {*NAMES}
        states = await self.systemd.look(names)
        sight = Sight(shelved.held, states, shelved.launches, shelved.unread, self.hands.stopping)
        contents = {each.hash: TEXT[each.hash] for each in find_wanted(listed, sight)}
        plan = decide(listed, contents, sight, frozenset())
        await self.hands.carry_out(plan.operations, lambda *_: None)
        for _ in range(4):
            await asyncio.sleep(0)
        return len(plan.operations)

    async def settle(self, listed: tuple[Order, ...]) -> None:
        for _ in range(8):
            if not await self.take_turn(listed):
                return
        pytest.fail(f"it never comes to rest: {await self.systemd.look(NAMES)}")


@settings(deadline=None, max_examples=50)
@given(st.lists(orders, min_size=1, max_size=4))
def test_every_order_is_done_in_a_few_passes_and_then_there_is_rest(steps: list[tuple[Order, ...]]) -> None:
    async def run() -> None:
        machine = _Machine()
        for listed in steps:
            await machine.settle(listed)
            shelved, states = machine.shelf.look(), await machine.systemd.look(NAMES)
            for order in listed:
                state, launch = states[order.name], shelved.launches.get(order.name)
                if order.desired == "removed":
                    assert order.name not in shelved.held
                    assert not state.running
                    continue
                assert shelved.held[order.name] == order.hash
                assert (launch is not None and launch.hash == order.hash) == (order.desired == "launched")
                runs = order.desired == "launched" and (order.name == "c.timer" or "web" in TEXT[order.hash])
                assert state.running == runs, order
        await machine.hands.close()

    asyncio.run(run())


@settings(deadline=None, max_examples=20)
@given(st.sets(st.sampled_from(NAMES)))
def test_a_unit_whose_stop_fails_keeps_its_file_and_the_others_go_on(stubborn: set[str]) -> None:
    async def run() -> None:
        machine = _Machine()
        text = TEXTS[0]
        begin = tuple(Order(name, "object", hash_text(text), "launched") for name in NAMES)
        await machine.settle(begin)
        machine.systemd.faults.stop = stubborn
        removed = tuple(replace(each, desired="removed") for each in begin)
        for _ in range(6):
            await machine.take_turn(removed)
        held, states = machine.shelf.look().held, await machine.systemd.look(NAMES)
        assert held.keys() == stubborn
        assert {name for name in NAMES if states[name].running} == stubborn
        await machine.hands.close()

    asyncio.run(run())
