"""Other ways to the new system: systemd-boot under UEFI firmware, and a kernel that permits no kexec."""

from __future__ import annotations

import pytest

from careen.disk.table import read_slots
from careen.disk.types import SlotName
from testos.machine import MachineOptions
from testos.site import Site

from .conftest import COMMIT_SECONDS, ENDED, NAME, STAGE_SECONDS, start, wait_up

A, B = SlotName.A, SlotName.B


@pytest.mark.parametrize("method", [pytest.param("Kexec", marks=pytest.mark.short), "Firmware"])
def test_systemd_boot_counts_its_entries(site: Site, method: str) -> None:
    start(site, options=MachineOptions(uefi=True))
    site.ask_for("2", boot={"method": method})
    wait_up(site[NAME], "2", B, method.lower())
    status = site.wait_phase(NAME, ENDED, "2", STAGE_SECONDS)
    assert (status["step"]["phase"], status["booted"], status["bootMethod"]) == ("Committed", "B", method), status
    site[NAME].reset()
    wait_up(site[NAME], "2", B, "firmware")
    assert str(read_slots(site[NAME].disk).b.attributes) == "P2 T0 S1"


@pytest.mark.short
def test_lockdown_is_seen_before_the_drain(site: Site) -> None:
    start(site, options=MachineOptions(words="lockdown=integrity"))
    decision = site.status(NAME)["bootDecision"]
    assert (decision["method"], decision["reason"]) == ("Firmware", "Lockdown"), decision
    site.ask_for("2")
    wait_up(site[NAME], "2", B, "firmware")
    status = site.wait_phase(NAME, ENDED, "2", COMMIT_SECONDS)
    assert (status["step"]["phase"], status["bootMethod"]) == ("Committed", "Firmware"), status
