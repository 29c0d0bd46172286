"""Other ways to the new system: systemd-boot under UEFI firmware, and a kernel that permits no kexec."""

from __future__ import annotations

import pytest

from careen.disk.table import read_slots
from careen.disk.types import SlotName
from testos.inspection import read_boot_entries
from testos.machine import MachineOptions
from testos.site import Site
from testos.variant import Fault

from .conftest import (
    COMMIT_SECONDS,
    ENDED,
    NAME,
    STAGE_AND_BOOT_SECONDS,
    Scene,
    expect_return,
    image,
    start,
    wait_up,
)

A, B = SlotName.A, SlotName.B
GOOD, TRIED = "careen-A.conf", "careen-B+0-1.conf"
"""systemd-boot's entries: of the old system, and of a new one whose only try it has taken."""


@pytest.mark.parametrize("method", [pytest.param("Kexec", marks=pytest.mark.short), "Firmware"])
def test_systemd_boot_counts_its_entries(site: Site, method: str) -> None:
    start(site, options=MachineOptions(uefi=True))
    site.ask_for("2", boot={"method": method})
    wait_up(site[NAME], "2", B, method.lower(), STAGE_AND_BOOT_SECONDS)
    status = site.wait_phase(NAME, ENDED, "2", COMMIT_SECONDS)
    assert (status["step"]["phase"], status["booted"], status["bootMethod"]) == ("Committed", "B", method), status
    site[NAME].reset()
    wait_up(site[NAME], "2", B, "firmware")
    assert str(read_slots(site[NAME].disk).b.attributes) == "P2 T0 S1"


@pytest.mark.parametrize(("method", "left"), [("Kexec", [GOOD]), ("Firmware", [GOOD, TRIED])])
def test_systemd_boot_goes_back_from_a_system_that_panics(
    site: Site, scene: Scene, method: str, left: list[str]
) -> None:
    scene.expect(f"panic in the new system under systemd-boot, booted by {method.lower()}", "the old system, Panic")
    site.publish(image("3", Fault.PANIC))
    machine = start(site, options=MachineOptions(uefi=True))
    site.ask_for("3", boot={"method": method})
    machine.console.wait_for("Kernel panic", STAGE_AND_BOOT_SECONDS)
    # What systemd-boot goes by at the reset that follows: no entry of the new system has a try left.
    assert read_boot_entries(machine.disk) == left
    wait_up(machine, "1", A, "firmware")
    status = expect_return(site, COMMIT_SECONDS)
    scene.note("the old system", str(status["step"]))
    assert (status["step"]["cause"], [found["cause"] for found in status["rejected"]]) == ("Panic", ["Panic"]), status
    site.wait_condition("Halted", COMMIT_SECONDS)
    assert read_boot_entries(machine.disk) == [GOOD]
    machine.reset()
    wait_up(machine, "1", A, "firmware")


def test_an_unhealthy_system_that_systemd_boot_booted_is_left(site: Site, scene: Scene) -> None:
    scene.expect("a unit fails in the new system under systemd-boot", "the old system, cause LocalGate")
    site.publish(image("3", Fault.UNHEALTHY))
    machine = start(site, options=MachineOptions(uefi=True))
    site.ask_for("3", boot={"method": "Firmware", "commitTimeoutSeconds": 60})
    wait_up(machine, "3", B, "firmware", STAGE_AND_BOOT_SECONDS)
    wait_up(machine, "1", A, "firmware")
    status = expect_return(site, COMMIT_SECONDS)
    scene.note("the old system", str(status["step"]))
    assert (status["step"]["cause"], [found["cause"] for found in status["rejected"]]) == ("LocalGate", ["LocalGate"])
    assert read_boot_entries(machine.disk) == [GOOD]


def test_lockdown_is_seen_before_the_drain(site: Site) -> None:
    start(site, options=MachineOptions(words="lockdown=integrity"))
    decision = site.status(NAME)["bootDecision"]
    assert (decision["method"], decision["reason"]) == ("Firmware", "Lockdown"), decision
    site.ask_for("2")
    wait_up(site[NAME], "2", B, "firmware", STAGE_AND_BOOT_SECONDS)
    status = site.wait_phase(NAME, ENDED, "2", COMMIT_SECONDS)
    assert (status["step"]["phase"], status["bootMethod"]) == ("Committed", "Firmware"), status
