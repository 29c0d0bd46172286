"""Whole updates of a real machine: operator, API server, signed releases, and what is on the disk in the end."""

from __future__ import annotations

import pytest

from careen.disk.boot import preview
from careen.disk.table import read_slots
from careen.disk.types import SlotName
from testos.site import Site
from testos.variant import Fault

from .conftest import BOOT_SECONDS, COMMIT_SECONDS, ENDED, NAME, STAGE_SECONDS, image, start, wait_up

A, B = SlotName.A, SlotName.B


@pytest.mark.short
def test_kexecs_into_the_new_system_and_boots_it_by_the_firmware_too(site: Site) -> None:
    machine = start(site)
    before = site.status(NAME)["bootID"]
    site.ask_for("2")
    staged = site.wait_phase(NAME, ("Staged", "Activating", *ENDED), "2", STAGE_SECONDS)
    assert staged["bootDecision"]["method"] == "Kexec", staged
    assert staged["bootDecision"]["deadman"] == "TrialTimer", staged
    wait_up(machine, "2", B, "kexec")
    status = site.wait_phase(NAME, ENDED, "2", COMMIT_SECONDS)
    assert (status["step"]["phase"], status["booted"], status["bootMethod"]) == ("Committed", "B", "Kexec"), status
    assert status["bootID"] != before
    assert status["slots"]["B"]["version"] == "2"
    site.wait_condition("Complete", COMMIT_SECONDS)
    slots = read_slots(machine.disk)
    assert (str(slots.a.attributes), str(slots.b.attributes)) == ("P1 T0 S1", "P2 T0 S1")
    machine.reset()
    wait_up(machine, "2", B, "firmware")
    site.wait_boot(NAME, status["bootID"], COMMIT_SECONDS)
    assert site.status(NAME)["bootMethod"] == "Firmware"


def test_boots_the_new_system_by_the_firmware(site: Site) -> None:
    start(site)
    site.ask_for("2", boot={"method": "Firmware"})
    staged = site.wait_phase(NAME, ("Staged", "Activating", *ENDED), "2", STAGE_SECONDS)
    assert staged["bootDecision"]["method"] == "Firmware", staged
    wait_up(site[NAME], "2", B, "firmware")
    status = site.wait_phase(NAME, ENDED, "2", COMMIT_SECONDS)
    assert (status["step"]["phase"], status["booted"], status["bootMethod"]) == ("Committed", "B", "Firmware"), status
    chosen = preview(site[NAME].disk)
    assert chosen is not None
    assert chosen.label == "USR-B"


@pytest.mark.parametrize("fault", [pytest.param(Fault.PANIC, marks=pytest.mark.short), Fault.INIT_EXITS])
def test_comes_back_from_a_broken_system_and_halts_the_rollout(site: Site, fault: Fault) -> None:
    site.publish(image("3", fault))
    machine = start(site)
    site.ask_for("3")
    machine.console.wait_for("Kernel panic", STAGE_SECONDS + BOOT_SECONDS)
    wait_up(machine, "1", A, "firmware")
    status = site.wait_phase(NAME, ENDED, "3", COMMIT_SECONDS)
    assert (status["step"]["phase"], status["booted"]) == ("RolledBack", "A"), status
    assert [found["cause"] for found in status["rejected"]] == ["Panic"], status
    halted = site.wait_condition("Halted", COMMIT_SECONDS)
    assert NAME in halted["message"], halted
    slots = read_slots(machine.disk)
    assert str(slots.a.attributes) == "P1 T0 S1"
    assert slots.b.attributes.priority == 0 or not slots.b.attributes.bootable
