"""What a person sees of the demo: a live table of the machines, and below it what has happened so far."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import AbstractContextManager, nullcontext
from io import StringIO
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from careen import __version__
from careen.api.meta import NAMESPACE
from careen.core.decode import decode_lock, decode_machine
from careen.core.lines import Line, read_line
from careen.core.snapshot import TERMINAL
from careen.kube.resources import CORE_NODES, LOCKS, NODES
from careen.kube.session import Session
from careen.sandbox.binaries import SandboxError
from careen.sandbox.demo import (
    MACHINES,
    MAX_IN_ZONE,
    MAX_UNAVAILABLE,
    ZONES,
    Result,
    explain_result,
    latest,
    play,
    zone_label,
)
from careen.sandbox.up import NEXT_VERSION, Sandbox
from careen.sandbox.witness import Document, Witness, call_witness

REFRESH_SECONDS = 0.2
SVG_WIDTH = 128
WIDE = 110
"""Columns from which on the table also shows the slots' attributes and the sentences."""
COLOURS = {
    "UpToDate": "green",
    "Waiting": "yellow",
    "Staging": "cyan",
    "Draining": "magenta",
    "Activating": "magenta",
    "Verifying": "blue",
    "Returning": "blue",
    "Failed": "red",
}
"""Colour of each state of a machine."""


class Picture:
    """The demo's screen. On a terminal a table that changes in place, elsewhere a line for each change of a machine."""

    def __init__(
        self, console: Console | None, title: str, *, allowed: int = MAX_UNAVAILABLE, version: str = NEXT_VERSION
    ) -> None:
        """console: where to draw; None draws nothing (but `save` still works).

        allowed: machines that may be down at once. version: the one that the machines are to get.
        """
        self._console = console
        self._title = title
        self._allowed = allowed
        self._version = version
        self._started = time.monotonic()
        self._turns: list[str] = []
        self._told: dict[str, tuple[str, ...]] = {}
        self._ended: set[tuple[str, str, str]] = set()
        self._scene: RenderableType | None = None
        self._score = (0, 0, 0)
        self._last: RenderableType | None = None

    def tell(self, text: str) -> None:
        """Add a turn of the story."""
        self._turns.append(f"{time.monotonic() - self._started:5.1f} s  {text}")
        if self._console is not None and not self._console.is_terminal:
            self._console.print(self._turns[-1], markup=False)

    async def follow(self, witness: Witness) -> None:
        """Draw the machines at each change, until cancelled."""
        live: AbstractContextManager[Live | None] = nullcontext()
        if self._console is not None and self._console.is_terminal:
            live = Live(console=self._console, auto_refresh=False)
        with live as screen:
            while True:
                down = frozenset(latest(witness).unavailable)
                self._notice(witness)
                self._remember(witness, down)
                self._last = self.draw(witness, down)
                if screen is not None:
                    screen.update(self._last, refresh=True)
                elif self._console is not None:
                    self._print_changes(witness)
                await asyncio.sleep(REFRESH_SECONDS)

    def draw(self, witness: Witness, down: frozenset[str]) -> RenderableType:
        """The machines as they are, and the story so far."""
        story = Panel(Text("\n".join(self._turns)), title="what has happened", title_align="left")
        return Group(self.draw_machines(witness, down, self._title), story)

    def draw_machines(self, witness: Witness, down: frozenset[str], title: str) -> Table:
        """The machines as they are."""
        caption = f"{len(down)} of {self._allowed} down (▼)"
        table = Table(title=title, title_style="bold", expand=True, caption=caption)
        terminal = self._console if self._console is not None and self._console.is_terminal else None
        wide = terminal is None or terminal.width >= WIDE
        marks = " P/T/S" if wide else ""
        for header in ("zone", "machine", f"slot A{marks}", f"slot B{marks}", "step", "reason"):
            table.add_column(header, no_wrap=True)
        if wide:
            table.add_column("why", ratio=1, overflow="ellipsis", no_wrap=True)
        cores, nodes = witness.live[CORE_NODES], witness.live[NODES]
        for zone, name in sorted((zone_label(cores.get(name)), name) for name in nodes):
            document = nodes[name]
            line = _line(witness, document)
            mark = Text("▼ ", "red") if name in down else Text("● ", "green")
            step = f"{line.wanted} {line.phase}" if line.wanted else "-"
            slots = (_draw_slot(document, letter, marks=wide) for letter in "AB")
            cells = (Text(step), Text(line.reason, COLOURS.get(line.state, "")))
            why = (Text(line.message, "dim"),) if wide else ()
            table.add_row(zone, mark + Text(name), *slots, *cells, *why)
        return table

    def save(self, path: Path, result: list[str]) -> None:
        """Write the demo's most telling moment and its figures as an SVG picture."""
        console = Console(record=True, width=SVG_WIDTH, file=StringIO(), force_terminal=True, color_system="truecolor")
        for drawn in filter(None, (self._scene, self._last)):
            console.print(drawn)
        console.print(Panel(Text("\n".join(result)), title="at the end", title_align="left"))
        picture = console.export_svg(title="careen sandbox demo", unique_id="careen")
        # Fonts would be fetched from the net by everybody who looks at the picture.
        path.write_text(re.sub(r"@font-face \{.*?\}|<!--.*?-->", "", picture, flags=re.DOTALL), encoding="utf-8")

    def finish(self, lines: list[str]) -> None:
        """Print the figures."""
        if self._console is not None:
            self._console.print(Panel(Text("\n".join(lines)), title="at the end", title_align="left"))

    def _remember(self, witness: Witness, down: frozenset[str]) -> None:
        """Keep the moment that tells most: machines down, at different steps, with others updated already."""
        lines = [_line(witness, document) for document in witness.live[NODES].values()]
        updated = sum(line.version == self._version for line in lines)
        score = (len(down), len({line.reason for line in lines}), min(updated, len(lines) - updated))
        if score > self._score and updated:
            seconds = time.monotonic() - self._started
            self._score = score
            self._scene = self.draw_machines(witness, down, f"{self._title}; after {seconds:.0f} s")

    def _print_changes(self, witness: Witness) -> None:
        assert self._console is not None
        for name, document in sorted(witness.live[NODES].items()):
            line = _line(witness, document)
            told = (line.version, line.wanted, line.phase, line.reason)
            if self._told.get(name) == told:
                continue
            self._told[name] = told
            seconds = time.monotonic() - self._started
            text = f"{seconds:5.1f} s  {name}: runs {line.version or '-'}, {line.phase}, {line.reason}"
            self._console.print(text, markup=False, highlight=False)

    def _notice(self, witness: Witness) -> None:
        """Tell when a machine has come to the end of an order."""
        for name, document in sorted(witness.live[NODES].items()):
            machine = decode_machine(document)
            end = (name, machine.step.id, machine.phase)
            if not machine.owns_step or machine.phase not in TERMINAL or end in self._ended:
                continue
            self._ended.add(end)
            version = machine.order.release.version if machine.order is not None else ""
            if machine.phase == "Committed":
                self.tell(f"{name} runs {version}, marked good")
            else:
                self.tell(f"{name} is back from {version}: {machine.step.cause}")


def show_demo(sandbox: Sandbox, console: Console | None, svg: Path | None = None) -> Result:
    """Play the demo on a sandbox that is up, draw it, and write its picture if asked to.

    SandboxError, which names the logs, when something does not happen in time.
    """
    title = f"{MACHINES} machines in {ZONES} zones, {MAX_UNAVAILABLE} down at most, {MAX_IN_ZONE} in a zone"
    picture = Picture(console, title)
    try:
        result = asyncio.run(_play(sandbox, picture))
    except TimeoutError as error:
        raise SandboxError(f"{error} (logs: {sandbox.logs})") from error
    lines = explain_result(result)
    picture.finish(lines)
    if svg is not None:
        picture.save(svg, lines)
    return result


async def _play(sandbox: Sandbox, picture: Picture) -> Result:
    connect = Session.connect(sandbox.cluster.kubeconfig, user_agent=f"careen-demo/{__version__}")
    async with connect as session, call_witness(session, NAMESPACE) as witness:
        drawing = asyncio.create_task(picture.follow(witness))
        try:
            return await play(sandbox, witness, session, picture.tell)
        finally:
            drawing.cancel()
            await asyncio.gather(drawing, return_exceptions=True)


def _line(witness: Witness, document: Document) -> Line:
    locks = [decode_lock(lock) for lock in witness.live[LOCKS].values()]
    return read_line(decode_machine(document), document, locks)


def _draw_slot(document: Document, letter: str, *, marks: bool) -> Text:
    status = document.get("status") or {}
    slot = (status.get("slots") or {}).get(letter)
    if slot is None:
        return Text("-")
    booted = status.get("booted") == letter
    text = f"{'▶' if booted else ' '} {slot.get('version') or 'empty':<6}"
    drawn = Text(text, "bold" if booted else "")
    attributes = f" {slot['priority']}/{slot['tries']}/{int(slot['successful'])}"
    return drawn + Text(attributes, "dim") if marks else drawn
