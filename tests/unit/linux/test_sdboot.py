"""systemd-boot's counted entries on the ESP, and what a power cut between any two steps leaves there."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from careen.agent.linux import sdboot
from careen.agent.linux.bootfiles import BootFiles
from careen.agent.linux.discovery import find_machine
from careen.agent.linux.loaders import ArmedBoot
from careen.agent.linux.sdboot import LOADER_INFO, EspError, SystemdBoot, is_systemd_boot, open_esp
from careen.agent.record import Method
from careen.disk.types import SlotName
from careen.release.manifest import BootFile, Image, StaticFile
from careen.release.verity import count_tree_bytes
from linux_machines import FakeMachine

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


def describe(path: str, data: bytes) -> BootFile:
    return BootFile(path=path, length=len(data), sha256=hashlib.sha256(data).hexdigest())


def armed(tmp_path: Path, slot: SlotName, method: Method, version: str = "2.0.0", *, initrd: bool = True) -> ArmedBoot:
    """A release of its own root hash, kernel and initrd for each version."""
    kernel, ramdisk = tmp_path / "kernel", tmp_path / "initrd"
    kernel.write_bytes(f"kernel {version} of {slot}".encode())
    ramdisk.write_bytes(f"initrd {version}".encode())
    root_hash = hashlib.sha256(version.encode()).hexdigest()
    static = StaticFile(path="files/x", length=1, sha256="00" * 32)
    image = Image(
        filesystem="ext4", size=4 * 4096 + count_tree_bytes(4), sha256="00" * 32, data_blocks=4, verity_root=root_hash,
        kernel=describe("boot/vmlinuz", kernel.read_bytes()),
        initrd=describe("boot/initrd", ramdisk.read_bytes()) if initrd else None,
        tree=static, table=static, frames=static,
    )  # fmt: skip
    line = f"quiet careen.slot={slot} careen.usrhash={root_hash}"
    files = BootFiles(kernel, ramdisk if initrd else None)
    return ArmedBoot(slot, method, version, image, files, lambda how: f"{line} by={how}")


def show(esp: Path, slot: SlotName) -> tuple[str, str, str]:
    """What the slot's good entry boots: kernel, initrd and root hash."""
    text = (esp / "loader" / "entries" / f"careen-{slot}.conf").read_text()
    fields = dict(line.split(" ", 1) for line in text.splitlines())
    kernel, initrd = ((esp / fields[key].lstrip("/")).read_text() for key in ("linux", "initrd"))
    return kernel, initrd, fields["options"].split("usrhash=")[1].split()[0]


def expected(version: str, slot: SlotName) -> tuple[str, str, str]:
    return f"kernel {version} of {slot}", f"initrd {version}", hashlib.sha256(version.encode()).hexdigest()


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
    assert "linux /careen/b/vmlinuz\ninitrd /careen/b/initrd\noptions quiet careen.slot=B" in text
    assert (esp / "careen" / "b" / "vmlinuz").read_bytes() == b"kernel 2.0.0 of B"
    assert [choose(esp), choose(esp)] == ["B", "A"]


def test_marked_good_it_boots_for_ever_and_the_next_one_goes_above_it(
    esp: Path, loader: SystemdBoot, tmp_path: Path
) -> None:
    loader.arm(armed(tmp_path, B, "Firmware"))
    assert choose(esp) == "B"
    loader.commit(armed(tmp_path, B, "Firmware"))
    loader.commit(armed(tmp_path, B, "Firmware"))
    assert entries(esp) == {"careen-A.conf", "careen-B.conf"}
    assert [choose(esp), choose(esp)] == ["B", "B"]
    loader.arm(armed(tmp_path, A, "Firmware"))
    assert [choose(esp), choose(esp)] == ["A", "B"]


def test_a_trial_by_kexec_is_unknown_to_the_firmware_until_it_is_good(
    esp: Path, loader: SystemdBoot, tmp_path: Path
) -> None:
    loader.arm(armed(tmp_path, B, "Kexec"))
    assert (entries(esp), choose(esp)) == ({"careen-A.conf"}, "A")
    loader.commit(armed(tmp_path, B, "Kexec"))
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


@pytest.fixture
def used(esp: Path, loader: SystemdBoot, tmp_path: Path) -> Path:
    """An ESP with history: A boots 3.0.0, and B's files are those of 2.0.0, which was committed there before."""
    for slot, version in ((B, "2.0.0"), (A, "3.0.0")):
        loader.arm(armed(tmp_path, slot, "Kexec", version))
        loader.commit(armed(tmp_path, slot, "Kexec", version))
    loader.give_up(B)
    return esp


@pytest.mark.parametrize("method", ["Kexec", "Firmware"])
@pytest.mark.parametrize("at", range(4))
def test_power_that_goes_while_arming_leaves_nothing_of_an_older_release_to_boot(
    used: Path, loader: SystemdBoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Method, at: int
) -> None:
    def write(name: str) -> Callable[..., None]:
        real = getattr(sdboot, name)

        def fail_at(*arguments: Any) -> None:
            if len(done) == at:
                raise OSError(28, "No space left on device")
            done.append(real(*arguments))

        return fail_at

    done: list[None] = []
    boot = armed(tmp_path, B, method, "4.0.0")
    with monkeypatch.context() as patch:
        for name in ("_install", "_write"):
            patch.setattr(sdboot, name, write(name))
        with suppress(EspError):
            loader.arm(boot)
    assert choose(used) == ("B" if method == "Firmware" and at == 4 else "A")
    assert loader.is_armed(B, boot.image, method) is (at >= (4 if method == "Firmware" else 3))
    # However it booted, what is marked good is what runs.
    loader.commit(boot)
    assert show(used, B) == expected("4.0.0", B)
    loader.give_up(A)
    assert choose(used) == "B"


@pytest.mark.parametrize("name", ["entry", "vmlinuz", "initrd"])
@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_what_is_not_the_signed_release_is_replaced_before_it_is_good(
    used: Path, loader: SystemdBoot, tmp_path: Path, name: str, damage: str
) -> None:
    boot = armed(tmp_path, B, "Kexec", "4.0.0")
    loader.arm(boot)
    file = used / "careen" / "b" / name
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes().replace(b"4.0.0", b"2.0.0").replace(b"usrhash=", b"usrhash=0"))
    assert not loader.is_armed(B, boot.image, "Kexec")
    with pytest.raises(EspError, match="needs the slot's kernel"):
        loader.commit(replace(boot, files=None))
    assert "careen-B.conf" not in entries(used)
    loader.commit(boot)
    assert show(used, B) == expected("4.0.0", B)
    loader.commit(replace(boot, files=None))


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
