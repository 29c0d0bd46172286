"""What people do with a fleet, from the first update to the uninstall; the same bodies on any cluster."""

from __future__ import annotations

import pytest

from careen.sandbox.firmware import Fault
from careen.sandbox.up import OUR_NODES, OUR_POLICIES
from sites import SWITCH, Site

pytestmark = pytest.mark.timeout(1500)


def in_flight(site: Site) -> list[str]:
    """Machines that were told to boot something, and have not ended it."""
    steps = {name: site.status(name).get("step", {}).get("phase") for name in site.names}
    return [name for name, phase in steps.items() if phase in ("Activating", "Verifying")]


def test_a_rolling_update_takes_one_machine_at_a_time(site: Site) -> None:
    version, boots = site.publish(), site.boots()
    most = 0

    def complete() -> bool:
        nonlocal most
        most = max(most, len(site.cordoned()), len(site.holders()))
        return site.holds_true("Complete")

    site.apply(version)
    site.until(complete, "the policy is Complete")
    assert most == 1, "machines were cordoned or held the lock at the same time, or no machine was seen to"
    assert set(site.versions().values()) == {version}
    assert all(boots[name] != boot for name, boot in site.boots().items()), "a machine was not rebooted"
    site.until(lambda: not site.holders() and not site.cordoned(), "lock and cordons are given back")


def test_a_release_that_panics_stops_at_the_first_machine(site: Site) -> None:
    before = site.versions()
    site.apply(site.publish(Fault.PANIC))
    site.until(lambda: site.holds_true("Halted"), "the rollout is halted")
    site.until(lambda: not site.holders() and not site.cordoned(), "lock and cordons are given back")
    assert site.versions() == before, "a machine does not run what it ran before"
    rejected = [name for name in site.names if site.status(name).get("step", {}).get("phase") == "RolledBack"]
    assert len(rejected) == 1, f"the release was tried on {rejected}"
    causes = [entry["cause"] for entry in site.status(rejected[0])["rejected"]]
    assert causes[-1] == "Panic"


def test_a_paused_policy_starts_nothing_and_goes_on_when_resumed(site: Site) -> None:
    version = site.publish()
    site.apply(version)
    first = site.until(lambda: in_flight(site), "a machine is in flight")
    site.careen("pause", "os")
    site.until(lambda: site.version(first[0]) == version and not site.holders(), "what was in flight has finished")
    waiting = [name for name in site.names if site.version(name) != version]
    assert waiting, "all machines were updated before the pause could be seen"
    with pytest.raises(AssertionError, match="something is started"):
        site.until(lambda: site.holders() or in_flight(site), "something is started", seconds=5)
    site.careen("resume", "os")
    site.until(lambda: site.holds_true("Complete"), "the policy is Complete")
    assert set(site.versions().values()) == {version}


def test_a_reboot_that_is_asked_for_is_done_once(site: Site) -> None:
    name, before, versions = site.names[0], site.boots(), site.versions()
    site.careen("reboot", name)
    done = site.until(lambda: (site.status(name).get("request") or {}).get("outcome"), "the request has an outcome")
    assert done == "Done"
    site.until(lambda: not site.holders() and not site.cordoned(), "lock and cordon are given back")
    after = site.boots()
    assert {each for each in site.names if after[each] != before[each]} == {name}
    assert site.versions() == versions


def test_a_machine_that_is_deleted_in_flight_holds_nothing_up(site: Site) -> None:
    version = site.publish()
    site.apply(version)
    lost = site.until(lambda: in_flight(site), "a machine is in flight")[0]
    site.lose(lost)
    site.until(lambda: not site.node(lost) and lost not in site.holders(), f"{lost} is forgotten, and its lock freed")
    others = [name for name in site.names if name != lost]
    site.until(lambda: all(site.version(name) == version for name in others), "the others are updated")
    site.restore(lost)
    site.until(lambda: site.version(lost) == version, f"{lost} came back and is updated too")
    site.until(lambda: site.holds_true("Complete"), "the policy is Complete")


def test_an_uninstall_leaves_no_cordon_and_keeps_the_objects(site: Site) -> None:
    """As docs say: stop by the switch, wait for what is in flight, uninstall."""
    site.apply(site.publish())
    site.until(lambda: in_flight(site), "a machine is in flight")
    site.api.create(SWITCH, {"metadata": {"name": "careen-switch"}, "data": {"paused": "true"}})
    site.until(lambda: not site.holders() and not in_flight(site), "what was in flight has finished")
    site.uninstall()
    assert site.cordoned() == []
    assert [policy["metadata"]["name"] for policy in site.api.items(OUR_POLICIES)] == ["os"]
    assert len(site.api.items(OUR_NODES)) == len(site.names)
