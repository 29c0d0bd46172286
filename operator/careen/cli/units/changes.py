"""What `submit`, `load`, `start`, `stop`, `unload`, `restart` and `destroy` do to the cluster's units."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from careen.cli.target import CommandError
from careen.cli.units.files import Pick, name_picks, read_picks
from careen.cli.units.progress import Goal
from careen.cli.units.registry import change_unit, destroy_unit, read_units, write_step
from careen.cli.units.selection import Step, choose_known, choose_steps
from careen.cli.units.views import UnitView
from careen.cli.units.waiting import Ending, Tell, Wish, wait_for, wait_gone, watch_units
from careen.kube.errors import ApiError
from careen.units.names import split_name

if TYPE_CHECKING:
    from careen.kube.session import Session

T = TypeVar("T")
R = TypeVar("R")
AT_ONCE = 8
"""Writes that are under way at a time."""
NOT_FOUND = "Units not found in the cluster"


@dataclass(frozen=True)
class Teller:
    """Where sentences go."""

    out: Tell
    """What was done."""
    error: Tell
    """What was not, what is waited for, and what people should look at."""


async def submit_units(session: Session, words: Sequence[str], teller: Teller, *, replace: bool = False) -> bool:
    """Make units of files, to be on no machine yet; whether all could be. CommandError before anything is written."""
    steps = await _choose(session, words, None, teller, replace=replace)
    written = await _write(session, steps, teller)
    for step, _ in written:
        teller.out(f"Unit {step.name} {step.desired}")
    return len(written) == len(steps)


async def bring_units(
    session: Session,
    words: Sequence[str],
    goal: Goal,
    teller: Teller,
    *,
    replace: bool = False,
    seconds: float | None = None,
) -> bool:
    """Have units loaded or launched, and wait for so many seconds (None: not at all); whether all of them are so.

    CommandError, before anything is written, when one of them can't be.
    """
    steps = await _choose(session, words, goal, teller, replace=replace)
    written = await _write(session, steps, teller)
    wishes = []
    for step, generation in written:
        if step.desired == "inactive":
            teller.out(f"Unit {step.name} inactive")
        else:
            wishes.append(Wish(step.name, step.object, goal, generation))
    verb = "start" if goal == "launched" else "load"
    endings = await _wait(session, wishes, verb, seconds, teller)
    for ending in endings:
        (teller.out if ending.ok else teller.error)(ending.sentence)
    return len(written) == len(steps) and all(ending.ok for ending in endings)


async def lower_units(
    session: Session, words: Sequence[str], goal: Goal, teller: Teller, *, seconds: float | None = None
) -> bool:
    """Have units stopped (loaded) or taken off their machines (inactive), and wait; whether all of them are so."""
    units, complete = await _find(session, words, teller)
    verb, past = ("stop", "stopped") if goal == "loaded" else ("unload", "unloaded")
    usable = [unit for unit in units if goal == "inactive" or unit.desired != "inactive"]
    for unit in units:
        if unit not in usable:
            teller.error(f"Unable to {verb} unit {unit.name} in state inactive")
    wishes = await _set_desired(session, usable, goal, teller)
    endings = await _wait(session, wishes, verb, seconds, teller)
    done = [ending.name for ending in endings if ending.ok]
    if done:
        teller.error(f"Successfully {past} units [{' '.join(done)}].")
    for ending in endings:
        if not (ending.ok and ending.usual):
            teller.error(ending.sentence)
    return complete and len(wishes) == len(units) and all(ending.ok for ending in endings)


async def restart_units(session: Session, units: Sequence[UnitView], teller: Teller, *, seconds: float) -> bool:
    """Stop units, and start each as soon as it has stopped; whether all of them came up. None of them is global."""
    usable = [unit for unit in units if unit.desired != "inactive"]
    for unit in units:
        if unit not in usable:
            teller.error(f"Unable to restart unit {unit.name} in state inactive")
    wishes = await _set_desired(session, usable, "loaded", teller)
    by_name = {unit.name: unit for unit in usable}
    ok = len(wishes) == len(units)
    if not wishes:
        return ok
    async with watch_units(session, {wish.object for wish in wishes}, seconds) as watch:

        async def restart(wish: Wish) -> Ending:
            stopped = await wait_for(watch, wish, seconds, teller.error)
            try:
                # What could not be stopped in time is to run all the same: that is what is wanted in the end.
                generation = await change_unit(session, by_name[wish.name], {"desiredState": "launched"})
            except (CommandError, ApiError) as error:
                return Ending(
                    wish.name, ok=False, sentence=f"Unit {wish.name} is stopped, and was not started: {error}"
                )
            if not stopped.ok:
                return stopped
            return await wait_for(watch, Wish(wish.name, wish.object, "launched", generation), seconds, teller.error)

        for ending in await asyncio.gather(*(restart(wish) for wish in wishes)):
            (teller.out if ending.ok else teller.error)(ending.sentence)
            ok = ok and ending.ok
    return ok


async def destroy_units(
    session: Session, words: Sequence[str], teller: Teller, *, seconds: float | None = None
) -> bool:
    """Delete units, and wait until no machine has anything of them; whether that is so. One that is not there is no
    failure: it may be gone already.
    """
    units, _ = await _find(session, words, teller)
    gone = await _do_all(units, lambda unit: destroy_unit(session, unit), teller)
    names = {unit.name for unit in gone}
    left = await wait_gone(session, names, seconds, teller.error) if seconds is not None and names else {}
    for name in sorted(names):
        if name in left:
            teller.error(f"Destroyed {name}, but after {seconds:g} s it is still on {', '.join(left[name])}")
        else:
            teller.out(f"Destroyed {name}")
    return len(gone) == len(units) and not left


async def find_units(session: Session, words: Sequence[str]) -> tuple[list[UnitView], list[str]]:
    """Units of the cluster that the words mean, and the words that mean none."""
    picks = name_picks(words)
    names = None if any(pick.is_pattern for pick in picks) else [pick.name for pick in picks]
    return choose_known(picks, await read_units(session, names))


async def _find(session: Session, words: Sequence[str], teller: Teller) -> tuple[list[UnitView], bool]:
    units, missing = await find_units(session, words)
    if missing:
        teller.error(f"{NOT_FOUND}: {' '.join(missing)}")
    return units, not missing


async def _choose(
    session: Session, words: Sequence[str], goal: Goal | None, teller: Teller, *, replace: bool
) -> list[Step]:
    picks = read_picks(words)
    choice = choose_steps(picks, await read_units(session, _list_needed(picks)), goal, replace=replace)
    for warning in choice.warnings:
        teller.error(warning)
    if choice.errors:
        *first, last = choice.errors
        for error in first:
            teller.error(error)
        raise CommandError(f"{last}; nothing was changed")
    return choice.steps


def _list_needed(picks: Iterable[Pick]) -> list[str] | None:
    """Names of units that must be looked up; None for all: a template tells of its instances, a pattern means many."""
    names: list[str] = []
    for pick in picks:
        parts = split_name(pick.name)
        if pick.is_pattern or parts.is_template:
            return None
        names += [pick.name, *([parts.template] if parts.template is not None else [])]
    return names


async def _write(session: Session, steps: Sequence[Step], teller: Teller) -> list[tuple[Step, int]]:
    """The steps that could be written, each with the generation that has it."""
    written: dict[int, int] = {}

    async def write(at: int) -> None:
        written[at] = await write_step(session, steps[at])

    await _do_all(range(len(steps)), write, teller)
    return [(step, written[at]) for at, step in enumerate(steps) if at in written]


async def _set_desired(session: Session, units: Sequence[UnitView], goal: Goal, teller: Teller) -> list[Wish]:
    wishes: dict[str, Wish] = {}

    async def change(unit: UnitView) -> None:
        generation = unit.generation
        if unit.desired != goal:
            generation = await change_unit(session, unit, {"desiredState": goal})
        wishes[unit.name] = Wish(unit.name, unit.object, goal, generation)

    await _do_all(units, change, teller)
    return [wishes[unit.name] for unit in units if unit.name in wishes]


async def _wait(
    session: Session, wishes: Sequence[Wish], verb: str, seconds: float | None, teller: Teller
) -> list[Ending]:
    """What came of the wishes, in their order; told as triggered, and none, where nothing is waited for."""
    if seconds is None:
        for wish in wishes:
            teller.out(f"Triggered unit {wish.name} {verb}")
    if seconds is None or not wishes:
        return []
    async with watch_units(session, {wish.object for wish in wishes}, seconds) as watch:
        return await asyncio.gather(*(wait_for(watch, wish, seconds, teller.error) for wish in wishes))


async def _do_all(items: Sequence[T], work: Callable[[T], Awaitable[object]], teller: Teller) -> list[T]:
    """Do it for all, a few at a time; those for which it could be done. What could not be is told for each."""
    turns = asyncio.Semaphore(AT_ONCE)
    failed: dict[int, str] = {}

    async def do(at: int) -> None:
        async with turns:
            try:
                await work(items[at])
            except CommandError as error:
                failed[at] = str(error)
            except ApiError as error:
                failed[at] = error.message

    await asyncio.gather(*(do(at) for at in range(len(items))))
    for message in dict.fromkeys(failed[at] for at in sorted(failed)):
        teller.error(message)
    return [item for at, item in enumerate(items) if at not in failed]
