"""What a person, or a program, gets to see of the demo on virtual machines."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from careen.sandbox.picture import Picture

from .cache import Report
from .debian import TestOsError
from .demo import BROKEN, FIRST, NAMES, NEXT, STRATEGY, Result, play, prepare
from .image import OsImage, build_image, build_loader
from .inspection import SlotOnDisk
from .serial import ConsoleTimeoutError
from .site import Site
from .timeline import NotSeenError, Passage
from .watch import watch_site

MIB = 1 << 20
FAILURES = (TimeoutError, NotSeenError, TestOsError, ConsoleTimeoutError)
HEADERS = (
    "machine", "staged", "waited", "drained", "reboot requested", "kernel started", "agent back", "committed", "outage",
)  # fmt: skip


class DemoError(Exception):
    """Something did not happen as it should; the message names the folder of the logs."""


def build_images(report: Report) -> dict[str, OsImage]:
    """All images of the demo, by version. Raises TestOsError."""
    report("images of the machines; the first time they are built from Debian packages, which takes minutes")
    began = time.monotonic()
    build_loader()
    found = {variant.version: build_image(variant) for variant in (FIRST, NEXT, BROKEN)}
    report(f"images are there after {time.monotonic() - began:.1f} s")
    return found


def show_demo(console: Console | None, report: Report) -> tuple[Result, dict[str, Any]]:
    """Play the demo and draw it; returns what was seen, and the same as the document of `--json`.

    console: where to draw; None draws nothing. Raises DemoError, TestOsError, SandboxError, ApiError.
    """
    images = build_images(report)
    with Site(report) as site:
        try:
            prepare(site, images)
            result = asyncio.run(_play(site, images[BROKEN.version], console, report))
        except FAILURES as error:
            raise DemoError(f"{error}\nlogs: {site.logs}") from error
        if console is not None:
            print_result(console, result)
            console.print(f"logs: {site.logs}", markup=False, highlight=False)
        return result, dump_result(result) | {"logs": str(site.logs)}


async def _play(site: Site, broken: OsImage, console: Console | None, report: Report) -> Result:
    def tell(text: str) -> None:
        picture.tell(text)
        if console is None:
            report(text)

    title = f"{len(NAMES)} virtual machines, {STRATEGY['maxUnavailable']} down at most"
    picture = Picture(console, title, allowed=1, version=NEXT.version)
    async with watch_site(site) as witness:
        drawing = asyncio.create_task(picture.follow(witness))
        try:
            return await play(site, witness, broken, tell)
        finally:
            drawing.cancel()
            await asyncio.gather(drawing, return_exceptions=True)


def print_result(console: Console, result: Result) -> None:
    """Tables of times, bytes and slots, and the end in a sentence."""
    console.print(_draw_times(result))
    console.print(_draw_bytes(result))
    console.print(_draw_slots(f"slots with {NEXT.version}", [(each.name, each.slots) for each in result.updated]))
    for back in result.returned:
        passage = back.passage
        panicked, returned = back.panicked - passage.requested, passage.agent_back - passage.requested
        console.print(
            f"{back.name}: {BROKEN.version} panicked {panicked:.1f} s after the reboot was requested; the agent of "
            f"{back.runs} was back after {returned:.1f} s, cause {back.cause}",
            highlight=False,
        )
    title = f"slots after {BROKEN.version}"
    console.print(_draw_slots(title, [(each.name, each.slots) for each in result.returned]))
    console.print(f"never touched: {', '.join(result.untouched) or 'no machine'}", highlight=False)
    console.print(f"policy: {result.halted or 'NOT halted'}", highlight=False, markup=False)
    console.print("all was as it should be" if result.ok else "NOT all was as it should be", style="bold")


def _draw_times(result: Result) -> Table:
    table = Table(title=f"{FIRST.version} to {NEXT.version}: seconds of each step", title_style="bold")
    for header in HEADERS:
        table.add_column(header, justify="left" if header == "machine" else "right")
    for machine in result.updated:
        steps = [f"{seconds:.1f}" for _, seconds in machine.passage.list_steps()]
        table.add_row(machine.name, *steps, f"{machine.passage.outage:.1f}")
    table.caption = (
        f"outage: reboot requested to agent back, by {', '.join({each.boot_method for each in result.updated})}; "
        f"{result.most_down} down at once at most"
    )
    return table


def _draw_bytes(result: Result) -> Table:
    table = Table(title="bytes of the image", title_style="bold", caption="skipped: in place already, or zeros")
    for header in ("machine", "release", "total", "fetched", "reused", "skipped"):
        table.add_column(header, justify="left" if header == "machine" else "right")
    passages = [(each.name, NEXT.version, each.passage) for each in result.updated]
    passages += [(each.name, BROKEN.version, each.passage) for each in result.returned]
    for name, version, passage in passages:
        moves = passage.moves
        numbers = (moves.total, moves.fetched, moves.reused, moves.skipped)
        table.add_row(name, version, *(f"{number / MIB:.1f} MiB" for number in numbers))
    return table


def _draw_slots(title: str, found: list[tuple[str, tuple[SlotOnDisk, SlotOnDisk]]]) -> Table:
    table = Table(title=title, title_style="bold")
    for header in ("machine", "slot", "attributes", "version", "next boot"):
        table.add_column(header)
    for name, slots in found:
        for slot in slots:
            table.add_row(name, slot.letter, str(slot.attributes), slot.version or "-", "▶" if slot.next else "")
    return table


def dump_result(result: Result) -> dict[str, Any]:
    """The JSON document."""
    return {
        "ok": result.ok,
        "mostDown": result.most_down,
        "updated": [
            {
                "machine": each.name,
                "runs": each.runs,
                "bootMethod": each.boot_method,
                **_dump_passage(each.passage),
                "slots": _dump_slots(each.slots),
            }
            for each in result.updated
        ],
        "returned": [
            {
                "machine": each.name,
                "runs": each.runs,
                "cause": each.cause,
                "panickedSeconds": round(each.panicked - each.passage.requested, 1),
                **_dump_passage(each.passage),
                "slots": _dump_slots(each.slots),
            }
            for each in result.returned
        ],
        "untouched": result.untouched,
        "halted": result.halted,
    }


def _dump_passage(passage: Passage) -> dict[str, Any]:
    moves = passage.moves
    return {
        "seconds": {name: round(seconds, 1) for name, seconds in passage.list_steps()},
        "outageSeconds": round(passage.outage, 1),
        "bytes": {"total": moves.total, "fetched": moves.fetched, "reused": moves.reused, "skipped": moves.skipped},
    }


def _dump_slots(slots: tuple[SlotOnDisk, SlotOnDisk]) -> list[dict[str, Any]]:
    return [
        {
            "slot": slot.letter,
            "priority": slot.attributes.priority,
            "tries": slot.attributes.tries,
            "successful": slot.attributes.successful,
            "version": slot.version or None,
            "next": slot.next,
        }
        for slot in slots
    ]
