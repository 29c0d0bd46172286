"""`python -m bench [NAME …]`: measure and print. Without names: all."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from . import handover, planning, staging


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


def bench_staging() -> list[str]:
    """An image of 450 MiB that is there already."""
    found = staging.measure()
    mb = 1e6
    return [
        f"unchanged image: {found.unchanged / mb:.0f} MB/s",
        f"that is {found.ratio:.2f} of `openssl dgst -sha256`, {found.openssl / mb:.0f} MB/s",
        f"copied from the booted slot: {found.copied / mb:.0f} MB/s",
        f"peak memory of the agent's process: {found.peak / mb:.0f} MB",
    ]


BENCHES: dict[str, Callable[[], list[str]]] = {
    "planning": bench_planning,
    "handover": bench_handover,
    "staging": bench_staging,
}


def main(names: list[str]) -> int:
    """Run the named benchmarks."""
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        print(f"no benchmark {unknown[0]}; there are: {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    for name in names or list(BENCHES):
        print(f"## {name}", flush=True)
        for line in BENCHES[name]():
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
