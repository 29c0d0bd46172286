"""systemd-boot's counted entries on the ESP, and what a power cut between any two steps leaves there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from careen.agent.linux.bootfiles import BootFiles
from careen.agent.linux.discovery import find_machine
from careen.agent.linux.loaders import ArmedBoot
from careen.agent.linux.sdboot import LOADER_INFO, EspError, SystemdBoot, is_systemd_boot, open_esp
from careen.agent.record import Method
from careen.disk.types import SlotName

from .conftest import FakeMachine

A, B = SlotName.A, SlotName.B


@pytest.fixture
def esp(tmp_path: Path) -> Path:
    """An ESP from which slot A boots."""
    folder = tmp_path / "esp"
    entries = folder / "loader" / "entries"
    entries.mkdir(parents=True)
    (entries / "careen-A.conf").write_text("title careen A (1.0.0)\nsort-key careen\nversion 1\n")
    (entries / "other.conf").write_text("title somebody else's\n")
    return folder


@pytest.fixture
def loader(esp: Path) -> SystemdBoot:
    @contextmanager
    def opened() -> Iterator[Path]:
        yield esp

    return SystemdBoot(opened)


def armed(tmp_path: Path, slot: SlotName, method: Method, *, initrd: bool = True) -> ArmedBoot:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(b"kernel of " + slot.value.encode())
    ramdisk = tmp_path / "initrd"
    ramdisk.write_bytes(b"initrd")
    return ArmedBoot(
        slot, method, "2.0.0", BootFiles(kernel, ramdisk if initrd else None), lambda how: f"quiet by={how}"
    )


def entries(esp: Path) -> set[str]:
    return {path.name for path in (esp / "loader" / "entries").iterdir()} - {"other.conf"}


def choose(esp: Path) -> str:
    """systemd-boot's choice: highest version first, entries without tries left last; it uses up a try."""
    best: tuple[bool, int, Path] | None = None
    for path in (esp / "loader" / "entries").glob("careen-*.conf"):
        version = int(re.search(r"^version (\d+)$", path.read_text(), re.MULTILINE)[1])  # type: ignore[index]
        rank = (not path.name.endswith(("+0.conf", "+0-1.conf")), version, path)
        best = max(best, rank) if best else rank
    assert best is not None
    path = best[2]
    if path.name.endswith("+1.conf"):
        path.rename(path.with_name(path.name.replace("+1.conf", "+0-1.conf")))
    return path.name.removeprefix("careen-")[0]


def test_a_trial_by_the_firmware_is_tried_once(esp: Path, loader: SystemdBoot, tmp_path: Path) -> None:
    loader.arm(armed(tmp_path, B, "Firmware"))
    text = (esp / "loader" / "entries" / "careen-B+1.conf").read_text()
    assert "linux /careen/b/vmlinuz\ninitrd /careen/b/initrd\noptions quiet by=Firmware\n" in text
    assert (esp / "careen" / "b" / "vmlinuz").read_bytes() == b"kernel of B"
    assert [choose(esp), choose(esp)] == ["B", "A"]


def test_marked_good_it_boots_for_ever_and_the_next_one_goes_above_it(
    esp: Path, loader: SystemdBoot, tmp_path: Path
) -> None:
    loader.arm(armed(tmp_path, B, "Firmware"))
    assert choose(esp) == "B"
    loader.commit(B)
    loader.commit(B)
    assert entries(esp) == {"careen-A.conf", "careen-B.conf"}
    assert [choose(esp), choose(esp)] == ["B", "B"]
    loader.arm(armed(tmp_path, A, "Firmware"))
    assert [choose(esp), choose(esp)] == ["A", "B"]


def test_a_trial_by_kexec_is_unknown_to_the_firmware_until_it_is_good(
    esp: Path, loader: SystemdBoot, tmp_path: Path
) -> None:
    loader.arm(armed(tmp_path, B, "Kexec"))
    assert (entries(esp), choose(esp)) == ({"careen-A.conf"}, "A")
    loader.commit(B)
    assert (entries(esp), choose(esp)) == ({"careen-A.conf", "careen-B.conf"}, "B")


def test_what_is_given_up_is_gone(esp: Path, loader: SystemdBoot, tmp_path: Path) -> None:
    loader.arm(armed(tmp_path, B, "Firmware", initrd=False))
    assert "initrd" not in (esp / "loader" / "entries" / "careen-B+1.conf").read_text()
    choose(esp)
    loader.give_up(B)
    loader.give_up(B)
    assert (entries(esp), choose(esp)) == ({"careen-A.conf"}, "A")


def test_the_only_good_entry_is_never_given_up(esp: Path, loader: SystemdBoot, tmp_path: Path) -> None:
    with pytest.raises(EspError, match="nothing would boot"):
        loader.give_up(A)
    loader.arm(armed(tmp_path, B, "Firmware"))
    with pytest.raises(EspError, match="nothing would boot"):
        loader.give_up(A)
    assert "careen-A.conf" in entries(esp)


def test_a_full_esp_arms_nothing(
    esp: Path, loader: SystemdBoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    boot = armed(tmp_path, B, "Firmware")
    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(EspError, match="No space left"):
        loader.arm(boot)
    assert (entries(esp), choose(esp)) == ({"careen-A.conf"}, "A")
    assert not list((esp / "careen" / "b").glob("*.new"))


def test_a_slot_whose_kernel_is_not_there_is_not_marked_good(esp: Path, loader: SystemdBoot) -> None:
    with pytest.raises(EspError, match="no kernel of slot B"):
        loader.commit(B)


def test_it_is_known_by_its_note(bare: FakeMachine) -> None:
    assert not is_systemd_boot(bare.root)
    bare.write(LOADER_INFO, b"\x06\0\0\0" + "GRUB 2.06\0".encode("utf-16-le"))
    assert not is_systemd_boot(bare.root)
    bare.write(LOADER_INFO, b"\x06\0\0\0" + "systemd-boot 252.39\0".encode("utf-16-le"))
    assert is_systemd_boot(bare.root)


def test_the_esp_of_the_machines_own_disk_is_used_where_it_is_mounted(machine: FakeMachine) -> None:
    machine.mount("254:0 /usr ext4 /dev/mapper/usr", "252:1 /efi vfat /dev/vda1")
    machine.root.at("/efi").mkdir()
    with open_esp(machine.root, find_machine(machine.root))() as place:
        assert place == machine.root.at("/efi")


def test_a_disk_without_an_esp_is_told_so(bare: FakeMachine) -> None:
    bare.add_disk("vda", order=("USR-A", "USR-B"))
    bare.run_from("vda1")
    with (
        pytest.raises(EspError, match="0 partitions of type EFI system"),
        open_esp(bare.root, find_machine(bare.root))(),
    ):
        pass
