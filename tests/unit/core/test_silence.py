"""Which agents are silent: by what we have seen, on our own clock, while we were looking."""

from __future__ import annotations

from careen.core.silence import SilenceTracker


def test_an_agent_is_silent_when_its_lease_has_not_changed_for_long() -> None:
    tracker = SilenceTracker(180)
    tracker.observe("m0", "t1", 0.0, 1000.0)
    assert not tracker.is_silent("m0", 1179.0, 0.0)
    assert tracker.is_silent("m0", 1180.0, 0.0)
    assert tracker.is_silent("unknown", 1000.0, 0.0)


def test_a_gap_starts_the_time_anew_but_does_not_bring_the_silent_back() -> None:
    tracker = SilenceTracker(180)
    for name in ("m0", "m1"):
        tracker.observe(name, "t1", 0.0, 1000.0)
    tracker.observe("m1", "t2", 0.0, 1100.0)
    tracker.keep(name for name in ("m0", "m1") if tracker.is_silent(name, 1200.0, 0.0))
    assert tracker.is_silent("m0", 1300.0, 1300.0)
    assert not tracker.is_silent("m1", 1300.0, 1300.0)
    tracker.observe("m0", "t1", 200.0, 1301.0)  # The list after the gap shows the same renewal.
    assert tracker.is_silent("m0", 1302.0, 1300.0)
    tracker.observe("m0", "t2", 0.0, 1303.0)
    assert not tracker.is_silent("m0", 1304.0, 1300.0)


def test_at_a_cold_start_an_old_lease_is_silent_until_it_changes() -> None:
    tracker = SilenceTracker(180)
    tracker.observe("m0", "t1", 181.0, 1000.0)
    assert tracker.is_silent("m0", 1001.0, 1000.0)
    tracker.observe("m0", "t2", 181.0, 1002.0)  # Its clock is behind, and it is alive.
    assert not tracker.is_silent("m0", 1003.0, 1000.0)
