"""`python -m bench [NAME …]`: measure and print. Without names: all."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from . import delta, handover, outage, placement, planning, staging

MISSED = "MISSED"
"""Begins a line on a limit that was not kept; `main` gives exit code 1 then."""


def judge(kept: bool, limit: str) -> list[str]:
    """Nothing, or the line on a limit that was not kept."""
    return [] if kept else [f"{MISSED}: {limit}"]


def bench_handover() -> list[str]:
    """100 machines by 10, 5 s reboots."""
    found = asyncio.run(handover.measure())
    return [
        f"hand-over p50 {found.p50_ms:.0f} ms, p99 {found.p99_ms:.0f} ms over {found.count} hand-overs",
        f"efficiency {found.efficiency:.2f}: {found.seconds:.1f} s for 100 machines by 10 with 5 s reboots",
    ]


def bench_planning() -> list[str]:
    """Plans for 100, 1000 and 5000 machines."""
    lines = []
    for machines in (100, 1000, 5000):
        for rolling in (False, True):
            found = planning.measure(machines, rolling=rolling)
            what = "half of them waiting" if rolling else "idle"
            lines.append(
                f"plan for {machines} machines, {what}: {found.plan_ms:.1f} ms of CPU, "
                f"{found.ratio:.1f} times reading their JSON ({found.json_ms:.1f} ms)"
            )
    return lines


def bench_placement() -> list[str]:
    """5000 units on 1000 machines."""
    found = placement.measure(5000, 1000)
    rows = (("from nothing", found.full), ("nothing changed", found.idle), ("one machine lost", found.lost))
    return [
        *(
            f"{what}: {figure.ms:.1f} ms of CPU, {figure.kib:.0f} KiB at most, {figure.decisions} decisions"
            for what, figure in rows
        ),
        f"one machine lost by from nothing: 1/{1 / found.share:.0f}; {found.unplaced} units without a place",
        *judge(found.share <= 1 / 20, "one machine lost takes 1/20 of a placement from nothing at most"),
    ]


def bench_staging() -> list[str]:
    """An image of 450 MiB: there already, in the booted slot, or nowhere but in the repository."""
    found = staging.measure()
    mb = 1e6
    return [
        f"unchanged image: {found.unchanged / mb:.0f} MB/s",
        f"that is {found.ratio:.2f} of `openssl dgst -sha256`, {found.openssl / mb:.0f} MB/s",
        f"copied from the booted slot: {found.copied / mb:.0f} MB/s",
        f"fetched over HTTP: {found.fetched / mb:.0f} MB/s",
        *(f"peak memory of the agent's process, {kind}: {peak / mb:.0f} MB" for kind, peak in found.peaks.items()),
        *judge(found.ratio >= 0.25, "an unchanged image is staged at 0.25 of openssl's speed or more"),
        *judge(max(found.peaks.values()) <= 96 * mb, "the agent's process takes 96 MB at most"),
    ]


def bench_delta() -> list[str]:
    """A Debian base system to its security update."""
    found, mb = delta.measure(), 1e6
    frames = "exactly the frames of the new blocks" if found.exact else "NOT exactly the frames of the new blocks"
    ours = found.index + found.frames
    lines = [f"image {found.image / mb:.1f} MB, {found.full / mb:.1f} MB as one zstd stream"]
    lines.append(f"{found.missing} of {found.blocks} blocks are new; staged in {found.seconds:.1f} s")
    lines.append(f"careen  {ours / mb:6.2f} MB, {found.share:.1%} of the full image")
    lines.append(f"        index {found.index / mb:.2f} MB, frames {found.frames / mb:.2f} MB, {frames}")
    lines.append(f"casync  {found.casync / mb:6.2f} MB, {found.casync / found.full:.1%}")
    lines += judge(found.exact and found.share <= 0.18, "the frames of the new blocks alone, 18 % of the full image")
    lines.append(f"xdelta3 {found.xdelta / mb:6.2f} MB, {found.xdelta / found.full:.1%}, one patch for this pair alone")
    return lines


def bench_outage() -> list[str]:
    """One virtual machine, by kexec and through the firmware."""
    found = outage.measure()
    lines = [
        f"{name}: {way.total:.1f} s from the request to the agent back (all runs: {', '.join(map(str, way.runs))}); "
        f"{way.shutdown:.1f} s of it until the kernel started, {way.boot:.1f} s after that"
        for name, way in (("kexec", found.kexec), ("firmware", found.firmware))
    ]
    return [*lines, f"kexec by firmware: {found.ratio:.2f}"]


BENCHES: dict[str, Callable[[], list[str]]] = {
    "planning": bench_planning,
    "placement": bench_placement,
    "handover": bench_handover,
    "staging": bench_staging,
    "delta": bench_delta,
    "outage": bench_outage,
}


def main(names: list[str]) -> int:
    """Run the named benchmarks; 1 if one of them does not keep a limit."""
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        print(f"no benchmark {unknown[0]}; there are: {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    missed = False
    for name in names or list(BENCHES):
        print(f"## {name}", flush=True)
        for line in BENCHES[name]():
            print(line, flush=True)
            missed = missed or line.startswith(MISSED)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
