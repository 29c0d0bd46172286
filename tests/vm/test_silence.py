"""The API server can't be reached, or the clock is years off: deadlines are kept, and nothing healthy is undone."""

from __future__ import annotations

import time

import pytest

from careen.disk.table import read_slots
from careen.disk.types import SlotName
from testos.machine import MachineOptions
from testos.site import Site

from .conftest import (
    BOOT_SECONDS,
    COMMIT_SECONDS,
    ENDED,
    NAME,
    STAGE_AND_BOOT_SECONDS,
    STAGE_SECONDS,
    Scene,
    image,
    start,
    wait_up,
)

A, B = SlotName.A, SlotName.B
COMMIT_TIMEOUT_SECONDS = 150
"""How long a trial waits for the API server, from its boot: more than the boot takes, less than the trial's timer."""
SETTLE_SECONDS = COMMIT_TIMEOUT_SECONDS + BOOT_SECONDS


def begin_without_network(site: Site, on_silence: str) -> None:
    """Update to 2, and pull the cable as soon as the old system has asked for the reboot."""
    start(site)
    site.ask_for("2", boot={"commitTimeoutSeconds": COMMIT_TIMEOUT_SECONDS, "onSilence": on_silence})
    site[NAME].console.wait_for(r"RequestReboot\(", STAGE_SECONDS)
    site[NAME].set_network(False)
    wait_up(site[NAME], "2", B, "kexec")


def test_silence_from_the_boot_on_rolls_back(site: Site, scene: Scene) -> None:
    scene.expect("API server unreachable from the new system's boot on, onSilence Rollback", "the old system")
    begin_without_network(site, "Rollback")
    wait_up(site[NAME], "1", A, "firmware", SETTLE_SECONDS)
    site[NAME].set_network(True)
    said = site[NAME].console.wait_for(r"WriteStatus .*'phase': 'RolledBack'.*'cause': 'Silence'", COMMIT_SECONDS)
    scene.note("the old system", said.text)


def test_silence_from_the_boot_on_commits_what_is_healthy(site: Site, scene: Scene) -> None:
    scene.expect("API server unreachable from the new system's boot on, onSilence Commit", "the new system")
    begin_without_network(site, "Commit")
    site[NAME].console.wait_for(r"MarkGood\(", SETTLE_SECONDS)
    site[NAME].set_network(True)
    status = site.wait_phase(NAME, ENDED, "2", COMMIT_SECONDS)
    scene.note("the new system", str(status["step"]))
    assert (status["step"]["phase"], status["booted"]) == ("Committed", "B"), status
    assert str(read_slots(site[NAME].disk).b.attributes) == "P2 T0 S1"


def test_a_silence_that_begins_after_an_answer_is_waited_out(site: Site, scene: Scene) -> None:
    scene.expect("API server lost after it answered in the trial", "the new system waits, uncommitted, then commits")
    start(site)
    site.ask_for("2", boot={"commitTimeoutSeconds": COMMIT_TIMEOUT_SECONDS}, readySeconds=90)
    wait_up(site[NAME], "2", B, "kexec", STAGE_AND_BOOT_SECONDS)
    site[NAME].console.wait_for(r"WriteStatus .*'phase': 'Verifying'", COMMIT_SECONDS)
    site[NAME].set_network(False)
    seen = len(site[NAME].console.lines)
    time.sleep(COMMIT_TIMEOUT_SECONDS + 20)
    assert not site[NAME].console.find("ROLLBACK|COMMIT|LOADER", seen), site[NAME].console.tail()
    assert str(read_slots(site[NAME].disk).b.attributes) == "P2 T0 S0"
    site[NAME].set_network(True)
    # Its connections are found dead one after the other, and readySeconds begins anew.
    status = site.wait_phase(NAME, ENDED, "2", 2 * COMMIT_SECONDS)
    scene.note("the new system waited, then committed", str(status["step"]))
    assert (status["step"]["phase"], status["booted"]) == ("Committed", "B"), status


@pytest.mark.parametrize("clock", ["2044-02-29T12:00:00", "2001-01-01T00:00:00"])
def test_a_clock_that_is_years_off_changes_nothing(site: Site, scene: Scene, clock: str) -> None:
    scene.expect(f"clock at {clock[:4]}", "the old system, nothing written; goes on once the clock is right")
    machine = site.add_machine(NAME, image("1"), MachineOptions(clock=clock))
    site.ask_for("2")
    machine.start()
    wait_up(machine, "1", A, "firmware")
    said = machine.console.wait_for("(?i)certificate", COMMIT_SECONDS)
    slots = read_slots(machine.disk)
    assert (str(slots.a.attributes), str(slots.b.attributes)) == ("P1 T0 S1", "P0 T0 S0")
    scene.note("nothing written; committed once the clock was right", said.text)
    machine.shell.run(f"date -u -s @{time.time():.0f}")
    # The machine's own clock runs on over the boots to come.
    wait_up(machine, "2", B, "kexec", STAGE_AND_BOOT_SECONDS)
    machine.shell.run(f"date -u -s @{time.time():.0f}")
    status = site.wait_phase(NAME, ENDED, "2", COMMIT_SECONDS)
    assert (status["step"]["phase"], status["booted"]) == ("Committed", "B"), status
