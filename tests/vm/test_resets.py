"""What a machine has written may go: it boots all the same, makes /etc and /var from /usr, and is itself again."""

from __future__ import annotations

import pytest

from careen.disk.table import read_slots
from careen.disk.types import SlotName
from testos.site import Site

from .conftest import BOOT_SECONDS, COMMIT_SECONDS, NAME, Scene, start, wait_up

A = SlotName.A
EVERYTHING = "/etc /var /root /home /srv /opt /mnt"


@pytest.fixture
def used(site: Site) -> str:
    """A machine that people have written to; returns its boot id."""
    start(site)
    site[NAME].shell.run("touch /etc/ours /var/ours /root/ours")
    return str(site.status(NAME)["bootID"])


def expect_new_life(site: Site, last: str) -> None:
    """The machine is up, as itself, and has nothing of what was written."""
    wait_up(site[NAME], "1", A, "firmware")
    status = site.wait_boot(NAME, last, COMMIT_SECONDS)
    assert status["booted"] == "A", status
    shell = site[NAME].shell
    assert shell.run("ls /etc/ours /var/ours /root/ours 2>/dev/null | wc -l") == "0"
    assert shell.run("systemctl is-system-running --wait", 120) == "running"
    assert "root:" in shell.run("cat /etc/passwd")
    slots = read_slots(site[NAME].disk)
    assert (str(slots.a.attributes), str(slots.b.attributes)) == ("P1 T0 S1", "P0 T0 S0")


def test_all_that_is_writable_is_deleted_on_a_running_machine(site: Site, used: str, scene: Scene) -> None:
    scene.expect("rm -rf of everything writable on a running machine", "the same system, made again from /usr")
    site[NAME].shell.try_run(f"for path in {EVERYTHING}; do (cd $path && rm -rf .[!.]* *); done; sync")
    site[NAME].reset()
    expect_new_life(site, used)
    scene.note("the same system, joined again", "a new boot")


def test_a_factory_reset(site: Site, used: str, scene: Scene) -> None:
    scene.expect("careen reset", "the same system, made again from /usr; same machine")
    site.request(NAME, "Reset")
    site[NAME].console.wait_for("reset: all but the machine's identity is deleted", BOOT_SECONDS)
    up = site[NAME].console.wait_for(r"OS up", BOOT_SECONDS)
    assert "version=1 slot=A" in up.text
    status = site.wait_boot(NAME, used, COMMIT_SECONDS)
    shell = site[NAME].shell
    assert shell.run("ls /etc/ours /var/ours /root/ours 2>/dev/null | wc -l") == "0"
    scene.note("the same system, joined again", str(status.get("step")))
