"""The stopwatch: what it times between the snapshots of two plans, and what it leaves alone."""

from __future__ import annotations

from typing import Any

from careen.control.figures import Sight
from careen.control.stopwatch import (
    DrainEnded,
    HandedOver,
    Lap,
    LockWaited,
    PhasePassed,
    Rebooted,
    Stopwatch,
    UpdateEnded,
)
from small_cluster import Cluster


class Film:
    """A stopwatch that looks at a cluster; each frame is one second after the one before."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.watch = Stopwatch()
        self.now = 100.0

    def frame(self, seconds: float = 1.0) -> list[Lap]:
        self.now += seconds
        snapshot = self.cluster.snapshot()
        # Machines that are back are left out of what is frozen: the next frame changes the cluster.
        frozen = Sight(snapshot, self.cluster.plan())
        return self.watch.look(frozen, self.now)


def begin(cluster: Cluster, *names: str) -> Film:
    cluster.add(*names)
    cluster.set_policy()
    cluster.set_lock()
    film = Film(cluster)
    assert film.frame() == []
    return film


def end(cluster: Cluster, name: str, phase: str = "Committed", cause: str | None = None, **changes: Any) -> None:
    cluster.give(name, "Commit" if phase == "Committed" else "Activate", phase, step_cause=cause, **changes)


def test_each_phase_is_timed_from_its_beginning_to_its_end(cluster: Cluster) -> None:
    film = begin(cluster, "m0")
    cluster.give("m0", phase="Staging")
    assert film.frame() == []
    cluster.give("m0")
    assert film.frame(3) == [PhasePassed("staging", 3)]
    cluster.set_lock("m0")
    assert set(film.frame(5)) == {PhasePassed("waiting", 5), LockWaited("default", 5)}
    cluster.give("m0", "Activate", "Staged")
    assert set(film.frame(2)) == {PhasePassed("draining", 2), DrainEnded("done", 2)}
    cluster.give("m0", "Activate", "Verifying")
    cluster.change("m0", last_boot="Kexec")
    assert set(film.frame(9)) == {PhasePassed("activating", 9), Rebooted("Kexec", 9)}
    end(cluster, "m0")
    assert set(film.frame(4)) == {PhasePassed("verifying", 4), UpdateEnded("os", None)}
    cluster.set_lock()
    assert film.frame(1) == [PhasePassed("returning", 1)]
    assert film.frame() == []


def test_a_rollback_is_counted_once_with_its_cause(cluster: Cluster) -> None:
    film = begin(cluster, "m0")
    cluster.give("m0", "Activate", "Activating")
    cluster.set_lock("m0")
    film.frame()
    end(cluster, "m0", "RolledBack", "Panic")
    assert UpdateEnded("os", "Panic") in film.frame()
    cluster.set_lock()
    assert not [lap for lap in film.frame() if isinstance(lap, UpdateEnded)]


def test_a_new_leader_times_and_counts_nothing_that_it_found(cluster: Cluster) -> None:
    cluster.add("m0", "m1")
    cluster.set_policy()
    cluster.give("m0", "Activate", "Activating")
    end(cluster, "m1", "RolledBack", "Panic")
    cluster.set_lock("m0", "m1", limit=2)
    film = Film(cluster)
    assert film.frame() == []
    cluster.give("m0", "Activate", "Verifying")
    assert film.frame() == []


def test_a_policy_that_is_gone_is_not_counted_for(cluster: Cluster) -> None:
    film = begin(cluster, "m0")
    cluster.give("m0", "Activate", "Verifying")
    cluster.set_lock("m0")
    film.frame()
    end(cluster, "m0")
    del cluster.policies["os"]
    assert not [lap for lap in film.frame() if isinstance(lap, UpdateEnded)]


def test_a_drain_that_is_given_up_says_so(cluster: Cluster) -> None:
    film = begin(cluster, "m0")
    cluster.give("m0")
    cluster.set_lock("m0")
    film.frame()
    cluster.give("m0", "Abort", "Staged", cause="Withdrawn", unarmed=True)
    assert DrainEnded("givenBack", 6) in film.frame(6)


def test_a_place_that_others_wait_for_is_handed_over(cluster: Cluster) -> None:
    film = begin(cluster, "m0", "m1")
    cluster.give("m1")
    cluster.give("m0", "Activate", "Verifying")
    cluster.set_lock("m0")
    film.frame()
    end(cluster, "m0")
    cluster.change_core("m0", ready=False)
    film.frame()
    cluster.change_core("m0", ready=True)
    cluster.set_lock("m1")
    assert HandedOver("default", 0.5) in film.frame(0.5)


def test_a_place_that_nobody_waited_for_is_not(cluster: Cluster) -> None:
    film = begin(cluster, "m0", "m1")
    cluster.give("m0", "Activate", "Verifying")
    cluster.set_lock("m0")
    film.frame()
    end(cluster, "m0")
    film.frame()
    cluster.set_lock()
    film.frame()
    cluster.give("m1")
    film.frame(1000)
    cluster.set_lock("m1")
    assert not [lap for lap in film.frame() if isinstance(lap, HandedOver)]


def test_a_reboot_that_people_ask_for_is_no_update(cluster: Cluster) -> None:
    from careen.core.wishes import Request

    film = begin(cluster, "m0")
    cluster.give("m0", "Activate", "Activating", request=Request("Reboot", "r1"))
    cluster.set_lock("m0")
    film.frame()
    cluster.give("m0", "Activate", "Verifying", request=Request("Reboot", "r1"))
    cluster.change("m0", last_boot="Firmware")
    assert film.frame(7) == [Rebooted("Firmware", 7)]
