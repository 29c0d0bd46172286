"""`python -m careen.sim`: run many seeds, or tell one of them."""

import argparse
import gc
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator

from .world import Outcome, explain_seed, run_and_sweep, run_seed


def main(arguments: list[str] | None = None) -> int:
    """Run seeds; 0 if no invariant broke, 1 if one did, with the shortest failing run told in full."""
    parser = argparse.ArgumentParser(prog="python -m careen.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3000, help="how many runs (default 3000)")
    parser.add_argument("--first", type=int, default=0, help="seed of the first run (default 0)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--tell", type=int, metavar="SEED", help="tell what happens in one run, and exit")
    options = parser.parse_args(arguments)
    if options.tell is not None:
        print(explain_seed(options.tell))
        return 0 if run_seed(options.tell).broken is None else 1
    started = time.monotonic()
    totals, broken = Counter[str](), []
    for count, outcome in enumerate(run_seeds(options.first, options.seeds, options.workers), start=1):
        totals.update(events=outcome.events, grants=outcome.grants, commits=outcome.commits)
        totals.update(rollbacks=outcome.rollbacks, reboots=outcome.reboots, resets=outcome.resets)
        if outcome.broken is not None:
            broken.append(outcome)
            print(f"seed {outcome.seed} ({outcome.profile}): {outcome.broken}", flush=True)
        if count % 5000 == 0:
            print(f"{count} of {options.seeds} seeds, {len(broken)} broken", flush=True)
    seconds = time.monotonic() - started
    print(
        f"{options.seeds} seeds in {seconds:.1f} s ({options.seeds / max(seconds, 0.001):.1f} seeds/s): "
        f"{totals['events']} events, {totals['grants']} grants, {totals['commits']} commits, "
        f"{totals['rollbacks']} rollbacks, {totals['reboots']} reboots by request, {totals['resets']} of them resets, "
        f"{len(broken)} broken"
    )
    if not broken:
        return 0
    shortest = min(broken, key=lambda outcome: outcome.events)
    print(explain_seed(shortest.seed))
    return 1


def run_seeds(first: int, count: int, workers: int) -> Iterator[Outcome]:
    """Outcomes of `count` seeds from `first` on, in any order; `workers` processes share them."""
    seeds = range(first, first + count)
    if workers <= 1:
        yield from map(run_seed, seeds)
        return
    # A run makes little rubbish that hangs together; looking for it all the time costs a seventh of the time.
    with multiprocessing.get_context("spawn").Pool(workers, initializer=gc.disable) as pool:
        yield from pool.imap_unordered(run_and_sweep, seeds, chunksize=25)


if __name__ == "__main__":
    sys.exit(main())
