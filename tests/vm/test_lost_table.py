"""A machine whose partition table is lost while it runs: it goes on, says so, and nothing is written."""

from __future__ import annotations

from careen.disk.table import read_slots
from testos.site import Site

from .conftest import COMMIT_SECONDS, NAME, Scene, start

SECTOR = 512


def test_without_a_table_nothing_is_touched(site: Site, scene: Scene) -> None:
    scene.expect("both copies of the GPT damaged", "the old system, all orders refused, the disk as it was")
    start(site)
    machine = site[NAME]
    last = machine.disk.stat().st_size // SECTOR - 1
    before = read_slots(machine.disk).b
    for sector in (1, last):
        machine.shell.run(f"dd if=/dev/zero of=/dev/vda bs=512 seek={sector} count=1 conv=notrunc,fsync")
    site.ask_for("2")
    status = site.wait_error(NAME, "Disk", COMMIT_SECONDS)
    assert "GPT" in status["step"]["error"]["message"] or "partition table" in status["step"]["error"]["message"], (
        status
    )
    assert machine.running
    with machine.disk.open("rb") as disk:
        for sector in (1, last):
            disk.seek(sector * SECTOR)
            assert disk.read(SECTOR) == bytes(SECTOR)
        disk.seek(before.start)
        assert disk.read(before.size) == bytes(before.size)
    scene.note("the old system runs on, nothing written", f"error class Disk: {status['step']['error']['message']}")
