"""Tables of the verbs: no frames, so that they can be cut and searched like kubectl's; folded only on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 1000
"""Columns of output that is no terminal: sentences stay on one line."""

COLOURS = {
    "UpToDate": "green",
    "Waiting": "yellow",
    "Staging": "cyan",
    "Draining": "magenta",
    "Activating": "magenta",
    "Verifying": "blue",
    "Returning": "blue",
    "Failed": "red",
    "Unmanaged": "bright_black",
}
"""Colour of each state of a machine."""


def open_console() -> Console:
    """Standard output as rich writes to it."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDE)


def make_table(*headers: str, title: str | None = None) -> Table:
    """An empty table; its last column is the one that is folded when the terminal is too narrow."""
    table = Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="bold")
    for header in headers[:-1]:
        table.add_column(header, no_wrap=True, header_style="bold")
    table.add_column(headers[-1], overflow="fold", header_style="bold")
    return table


def add_row(table: Table, cells: Sequence[object], state: str | None = None) -> None:
    """Add a row of plain text, coloured by the machine's state."""
    style = COLOURS.get(state or "", "")
    table.add_row(*(Text(str(cell)) for cell in cells), style=style)


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines of text with aligned columns."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return ["   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def tell_age(since: float, now: float) -> str:
    """How long ago, as kubectl writes ages: 12s, 5m30s, 3h, 2d."""
    seconds = max(0, int(now - since))
    if seconds < 120:
        return f"{seconds}s"
    if seconds < 600:
        return f"{seconds // 60}m{seconds % 60}s"
    if seconds < 7200:
        return f"{seconds // 60}m"
    if seconds < 172_800:
        return f"{seconds // 3600}h"
    return f"{seconds // 86_400}d"
