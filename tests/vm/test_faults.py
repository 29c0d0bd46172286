"""What goes wrong in the new system, or before it: the machine ends on a system that works, and says why."""

from __future__ import annotations

from typing import Any

import pytest

from careen.disk.types import SlotName
from testos.debian import PackageSet
from testos.image import build_image
from testos.machine import MachineOptions
from testos.site import Site
from testos.variant import Fault, Variant

from .conftest import (
    BOOT_SECONDS,
    COMMIT_SECONDS,
    ENDED,
    NAME,
    STAGE_AND_BOOT_SECONDS,
    STAGE_SECONDS,
    Scene,
    expect_return,
    image,
    start,
    wait_up,
)

A, B = SlotName.A, SlotName.B
DEADMAN_SECONDS = 900.0
"""How long a trial's deadman, and the one more attempt that a lost trial gets, may take."""
WATCHDOG_SECONDS = 60
"""How long the watchdog waits for the new system, and how long for the shutdown before it."""


def expect_cause(scene: Scene, status: dict[str, Any], cause: str) -> None:
    """The status says why the new system was left, and the table of faults has it."""
    assert [found["cause"] for found in status["rejected"]] == [cause], status
    scene.note("the old system", f"RolledBack, cause {cause}")


@pytest.mark.parametrize("fault", [Fault.NO_AGENT, Fault.AGENT_CRASHES])
def test_the_trial_timer_ends_a_system_without_an_agent(site: Site, scene: Scene, fault: Fault) -> None:
    site.publish(image("3", fault))
    start(site)
    site.ask_for("3")
    wait_up(site[NAME], "3", B, "kexec", STAGE_AND_BOOT_SECONDS)
    site[NAME].console.wait_for("not marked good in time", DEADMAN_SECONDS)
    wait_up(site[NAME], "1", A, "firmware")
    expect_cause(scene, expect_return(site, DEADMAN_SECONDS), "TrialLost")


@pytest.mark.short
def test_an_unhealthy_system_is_left(site: Site, scene: Scene) -> None:
    site.publish(image("3", Fault.UNHEALTHY))
    start(site)
    site.ask_for("3", boot={"commitTimeoutSeconds": 60})
    wait_up(site[NAME], "3", B, "kexec", STAGE_AND_BOOT_SECONDS)
    wait_up(site[NAME], "1", A, "firmware")
    expect_cause(scene, expect_return(site, COMMIT_SECONDS), "LocalGate")


def test_a_software_watchdog_ends_a_hang(site: Site, scene: Scene) -> None:
    site.publish(image("3", Fault.HANG))
    start(site, options=MachineOptions(words="softdog.soft_margin=60 systemd.watchdog_sec=60"))
    site.ask_for("3")
    site[NAME].console.wait_for("OS fault: hang", STAGE_AND_BOOT_SECONDS)
    wait_up(site[NAME], "1", A, "firmware")
    expect_cause(scene, expect_return(site, DEADMAN_SECONDS), "TrialLost")


@pytest.mark.short
def test_a_hardware_watchdog_that_survives_the_kexec_ends_a_hang(site: Site, scene: Scene) -> None:
    first, hanging = (
        build_image(variant, packages=PackageSet.GENERIC) for variant in (Variant("1"), Variant("3", Fault.HANG))
    )
    site.publish(hanging)
    options = MachineOptions(watchdog=True, words="watchdog.stop_on_reboot=0")
    seconds = str(WATCHDOG_SECONDS)
    start(site, first, options, CAREEN_AGENT_WATCHDOG_SECONDS=seconds, CAREEN_AGENT_FORCED_REBOOT_SECONDS=seconds)
    site.ask_for("3")
    staged = site.wait_phase(NAME, ("Staged", "Activating", *ENDED), "3", STAGE_SECONDS)
    assert staged["bootDecision"]["deadman"] == "HardwareWatchdog", staged
    site[NAME].console.wait_for("OS fault: hang", BOOT_SECONDS)
    wait_up(site[NAME], "1", A, "firmware")
    expect_cause(scene, expect_return(site, DEADMAN_SECONDS), "Watchdog")


@pytest.mark.short
def test_goes_on_after_power_cuts(site: Site) -> None:
    start(site)
    machine = site[NAME]
    site.ask_for("2")
    site.wait_progress(NAME, STAGE_SECONDS)
    machine.cut_power()
    machine.start()
    wait_up(machine, "1", A, "firmware")
    wait_up(machine, "2", B, "kexec", STAGE_AND_BOOT_SECONDS)
    # Up, but nobody has said that it is good: the next boot is the old system's, and one more attempt is made.
    machine.cut_power()
    machine.start()
    wait_up(machine, "1", A, "firmware")
    # The first attempt is told as RolledBack for the moment until the operator orders the next one.
    status = site.wait_phase(NAME, ("Committed",), "2", DEADMAN_SECONDS)
    assert status["booted"] == "B", status
