"""The dashboard as one SVG picture: what Grafana would show of the same answers, drawn plainly.

Written by hand: a plotting library would be the largest dependency of the project, for four kinds of panels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

from .values import Series, Table, show_value

UNIT, ROW, GAP, HEAD = 50, 30, 8, 24
COLOURS = ("#73bf69", "#5794f2", "#ff9830", "#b877d9", "#f2495c", "#fade2a", "#37872d", "#8ab8ff", "#c4162a", "#ca95e5")
STYLE = (
    "text{font-family:Inter,Helvetica,Arial,sans-serif;font-size:11px;fill:#ccccdc}"
    ".title{font-size:12px;font-weight:600}.row{font-size:13px;font-weight:600}.dim{fill:#8e8e99;font-size:10px}"
    ".big{font-size:22px;font-weight:600}"
)


@dataclass(frozen=True)
class Box:
    """A panel's place in the picture."""

    x: float
    y: float
    width: float
    height: float


Answers = Callable[[dict[str, Any]], list[Series] | Table]


def draw_dashboard(document: dict[str, Any], answer: Answers) -> str:
    """The picture. answer: what Prometheus says to a panel's queries."""
    panels = document["panels"]
    height = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in panels) * ROW + 40
    width = 24 * UNIT + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">',
        f"<title>{escape(document['title'])}</title><style>{STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="#111217"/>',
        f'<text x="{GAP}" y="24" class="big">{escape(document["title"])}</text>',
    ]
    for panel in panels:
        place = panel["gridPos"]
        box = Box(GAP + place["x"] * UNIT, 40 + place["y"] * ROW, place["w"] * UNIT - GAP, place["h"] * ROW - GAP)
        if panel["type"] == "row":
            parts.append(f'<text x="{box.x}" y="{box.y + 16}" class="row">{escape(panel["title"])}</text>')
        else:
            parts += _draw_panel(panel, box, answer(panel))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _draw_panel(panel: dict[str, Any], box: Box, answer: list[Series] | Table) -> list[str]:
    parts = [
        f'<rect x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" rx="3" fill="#181b1f"/>',
        f'<text x="{box.x + 8}" y="{box.y + 16}" class="title">{escape(_cut(panel["title"], box.width - 16))}</text>',
    ]
    defaults = panel["fieldConfig"]["defaults"]
    inner = Box(box.x + 8, box.y + HEAD, box.width - 16, box.height - HEAD - 8)
    if isinstance(answer, Table):
        return parts + _draw_table(answer, inner)
    if not answer:
        return [*parts, f'<text x="{inner.x}" y="{inner.y + 30}" class="dim">no data</text>']
    if panel["type"] == "stat":
        return parts + _draw_stats(answer, inner, defaults)
    if panel["type"] == "bargauge":
        return parts + _draw_bars(answer, inner, defaults)
    stacked = defaults["custom"].get("stacking", {}).get("mode") == "normal"
    return parts + _draw_lines(answer, inner, defaults, stacked=stacked)


def _draw_stats(answer: Sequence[Series], box: Box, defaults: dict[str, Any]) -> list[str]:
    parts = []
    step = box.width / len(answer)
    for index, series in enumerate(answer):
        x, y = box.x + index * step, box.y + box.height / 2
        value = show_value(series.points[-1][1], defaults)
        parts.append(f'<text x="{x}" y="{y + 6}" class="big" style="fill:{COLOURS[0]}">{escape(value)}</text>')
        parts.append(f'<text x="{x}" y="{y + 24}" class="dim">{escape(_cut(series.name, step))}</text>')
    return parts


def _draw_bars(answer: Sequence[Series], box: Box, defaults: dict[str, Any]) -> list[str]:
    parts = []
    top = max(series.points[-1][1] for series in answer) or 1.0
    step = min(26.0, box.height / len(answer))
    room = box.width * 0.4
    for index, series in enumerate(answer):
        value = series.points[-1][1]
        y = box.y + index * step
        parts.append(f'<text x="{box.x}" y="{y + 13}">{escape(_cut(series.name, room))}</text>')
        length = max(1.0, value / top * (box.width - room - 60))
        colour = COLOURS[index % len(COLOURS)]
        place = f'x="{box.x + room:.1f}" y="{y + 2:.1f}" width="{length:.1f}" height="{step - 8:.1f}"'
        parts.append(f'<rect {place} fill="{colour}"/>')
        parts.append(f'<text x="{box.x + room + length + 6:.1f}" y="{y + 13:.1f}">{show_value(value, defaults)}</text>')
    return parts


def _draw_table(table: Table, box: Box) -> list[str]:
    step = box.width / max(len(table.header), 1)
    rows = [table.header, *table.rows]
    parts = []
    for index, row in enumerate(rows[: int(box.height // 18)]):
        kind = ' class="dim"' if index == 0 else ""
        for column, cell in enumerate(row):
            x, y = box.x + column * step, box.y + 14 + index * 18
            parts.append(f'<text x="{x:.1f}" y="{y}"{kind}>{escape(_cut(cell, step))}</text>')
    return parts


def _draw_lines(answer: Sequence[Series], box: Box, defaults: dict[str, Any], *, stacked: bool) -> list[str]:
    plot = Box(box.x + 44, box.y, box.width - 48, box.height - 34)
    layers = _stack(answer) if stacked else [[(t, 0.0, v) for t, v in series.points] for series in answer]
    instants = [t for layer in layers for t, _, _ in layer]
    start, end = min(instants), max(*instants, min(instants) + 1)
    top = max((high for layer in layers for _, _, high in layer), default=0.0) or 1.0

    def place(instant: float, value: float) -> str:
        x = plot.x + (instant - start) / (end - start) * plot.width
        return f"{x:.1f},{plot.y + plot.height - value / top * plot.height:.1f}"

    parts = []
    for part in (0.0, 0.5, 1.0):
        y = plot.y + plot.height * (1 - part)
        parts.append(f'<path d="M{plot.x},{y:.1f}h{plot.width:.1f}" stroke="#2a2d33"/>')
        parts.append(f'<text x="{box.x}" y="{y + 4:.1f}" class="dim">{show_value(top * part, defaults)}</text>')
    for index, layer in enumerate(layers):
        colour = COLOURS[index % len(COLOURS)]
        line = " ".join(place(t, high) for t, _, high in layer)
        if stacked:
            back = " ".join(place(t, low) for t, low, _ in reversed(layer))
            parts.append(f'<polygon points="{line} {back}" fill="{colour}" fill-opacity="0.5"/>')
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.3"/>')
    parts.append(f'<text x="{plot.x}" y="{plot.y + plot.height + 14:.1f}" class="dim">0 s</text>')
    parts.append(
        f'<text x="{plot.x + plot.width:.1f}" y="{plot.y + plot.height + 14:.1f}" class="dim" text-anchor="end">'
        f"{end - start:.0f} s</text>"
    )
    return parts + _draw_legend([series.name for series in answer], box)


def _draw_legend(names: Sequence[str], box: Box) -> list[str]:
    parts, x = [], box.x
    for index, name in enumerate(names):
        width = 16 + 6 * len(name) + 10
        if x + width > box.x + box.width:
            parts.append(f'<text x="{x}" y="{box.y + box.height}" class="dim">…</text>')
            break
        colour = COLOURS[index % len(COLOURS)]
        parts.append(f'<rect x="{x}" y="{box.y + box.height - 8}" width="10" height="8" fill="{colour}"/>')
        parts.append(f'<text x="{x + 14}" y="{box.y + box.height}" class="dim">{escape(name)}</text>')
        x += width
    return parts


def _stack(answer: Sequence[Series]) -> list[list[tuple[float, float, float]]]:
    """(instant, low, high) of each series on top of those before it; where one has no value it is 0."""
    known = sorted({t for series in answer for t, _ in series.points})
    step = min((later - t for t, later in pairwise(known)), default=1.0)
    # Also where nobody has a value: a line over the gap would show what was not there.
    instants = [known[0] + n * step for n in range(round((known[-1] - known[0]) / step) + 1)]
    base = dict.fromkeys(instants, 0.0)
    layers = []
    for series in answer:
        values = {round(t, 3): value for t, value in series.points}
        layer = [(t, base[t], base[t] + values.get(round(t, 3), 0.0)) for t in instants]
        base = {t: high for t, _, high in layer}
        layers.append(layer)
    return layers


def _cut(text: str, width: float) -> str:
    most = max(4, int(width / 6.2))
    return text if len(text) <= most else text[: most - 1] + "…"
