"""An agent with nothing to do sleeps: nothing wakes it but its watch and its Lease."""

from __future__ import annotations

import time

from testos.site import RENEW_SECONDS, Site

from .conftest import NAME, Scene, start

WATCHED_SECONDS = 120.0
WAKES_EACH_RENEWAL = 20
"""A request is written, answered and read, by two threads; one poll a second would already double it."""
COUNT = "pid=$(systemctl show -p MainPID --value careen-agent); cat /proc/$pid/task/*/status"


def count_wakes(site: Site) -> int:
    """How often the agent's threads have gone to sleep so far, each of which a wake-up ended."""
    lines = site[NAME].shell.run(COUNT).splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


def test_an_idle_agent_wakes_for_its_lease_alone(site: Site, scene: Scene) -> None:
    scene.expect("no order for two minutes", "the old system; the agent wakes for its Lease alone")
    start(site)
    time.sleep(2 * RENEW_SECONDS)
    before = count_wakes(site)
    time.sleep(WATCHED_SECONDS)
    wakes = count_wakes(site) - before
    renewals = WATCHED_SECONDS / RENEW_SECONDS
    print(f"{wakes} wake-ups in {WATCHED_SECONDS:g} s, {wakes / renewals:.1f} for each renewal")
    assert 0 < wakes <= WAKES_EACH_RENEWAL * (renewals + 1)
    scene.note("the old system", f"{wakes / renewals:.0f} wake-ups for each renewal")
