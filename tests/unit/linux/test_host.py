"""The Linux host from look to reboot, on a machine in a folder: what it does, in which order, and what it refuses."""

from __future__ import annotations

import errno
import hashlib
import json
import platform
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from careen.agent.actions import StageImage
from careen.agent.host import KexecRefusedError, RebootError
from careen.agent.linux import bootfiles
from careen.agent.linux.health import HealthSettings
from careen.agent.linux.host import LinuxHost
from careen.agent.linux.root import Answer
from careen.agent.linux.sdboot import LOADER_INFO
from careen.agent.linux.settings import LinuxSettings
from careen.agent.record import Journal, Method, OpenOrder, Stage
from careen.agent.staging.fault import StageError
from careen.disk.boot import preview
from careen.disk.table import change_slots, read_slots
from careen.disk.types import GIVEN_UP, Attributes, DiskError, SlotName
from careen.release.manifest import BootFile, Image, ReleaseDocument, StaticFile
from careen.release.verity import count_tree_bytes
from careen.sandbox.releases import ReleaseServer, Repository

from .conftest import BOOT_ID, MACHINE_ID, FakeMachine

A, B = SlotName.A, SlotName.B
KERNEL, INITRD = b"kernel" * 1000, b"initrd" * 1000
ROOT_HASH = "cd" * 32
TRIAL = Attributes(2, 0, False)


@dataclass
class FakeKexec:
    """Remembers what was loaded, as it was then."""

    error: int = 0
    loaded: tuple[bytes, bytes, str] | None = None
    calls: list[str] = field(default_factory=list)

    def load(self, kernel: Path, initrd: Path | None, line: str) -> None:
        self.calls.append("load")
        if self.error:
            raise OSError(self.error, "kexec_file_load")
        self.loaded = kernel.read_bytes(), initrd.read_bytes() if initrd else b"", line

    def unload(self) -> None:
        self.calls.append("unload")
        self.loaded = None

    def is_loaded(self) -> bool:
        return self.loaded is not None


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def document(*, kernel: bool = True, capabilities: tuple[str, ...] = ()) -> ReleaseDocument:
    static = StaticFile(path="files/x", length=1, sha256="00" * 32)
    image = Image(
        filesystem="ext4",
        size=4 * 4096 + count_tree_bytes(4),
        sha256="00" * 32,
        data_blocks=4,
        verity_root=ROOT_HASH,
        kernel=BootFile(path="boot/vmlinuz", length=len(KERNEL), sha256=sha256(KERNEL)) if kernel else None,
        initrd=BootFile(path="boot/initrd", length=len(INITRD), sha256=sha256(INITRD)) if kernel else None,
        tree=static,
        table=static,
        frames=static,
    )
    return ReleaseDocument(
        version="2.0.0", product="test", capabilities=capabilities, images={platform.machine(): image}
    )


def hold(machine: FakeMachine, slot: SlotName, held: ReleaseDocument) -> str:
    """Make the agent's state folder say that a slot holds a release."""
    data = held.dump()
    digest = f"sha256:{sha256(data)}"
    machine.write(f"/var/lib/careen/releases/{sha256(data)}.json", data)
    path = machine.root.at("/var/lib/careen/slots.json")
    records = json.loads(path.read_text()) if path.exists() else {}
    image = held.images[platform.machine()]
    machine.write(
        "/var/lib/careen/slots.json",
        json.dumps({**records, slot.value: {"digest": digest, "size": image.size, "version": held.version}}),
    )
    return digest


@pytest.fixture
def slot_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is seen when a slot is mounted."""
    tree = tmp_path / "slot"
    (tree / "boot").mkdir(parents=True)
    (tree / "boot" / "vmlinuz").write_bytes(KERNEL)
    (tree / "boot" / "initrd").write_bytes(INITRD)

    @contextmanager
    def mounted(device: Path, filesystem: str) -> Iterator[Path]:
        assert (device.name, filesystem) == ("vda3", "ext4")
        yield tree

    monkeypatch.setattr(bootfiles, "mounted", mounted)
    return tree


@pytest.fixture
def kexec() -> FakeKexec:
    return FakeKexec()


def settings(**changes: object) -> LinuxSettings:
    return LinuxSettings(health=HealthSettings(free_bytes=0, kubelet=""), **changes)  # type: ignore[arg-type]


@pytest.fixture
async def host(machine: FakeMachine, kexec: FakeKexec) -> AsyncIterator[LinuxHost]:
    machine.commands.answers["systemctl is-system-running"] = Answer(0, "running\n")
    async with LinuxHost(settings(), root=machine.root, commands=machine.commands, kexec=kexec) as opened:
        yield opened


async def journal(host: LinuxHost, **changes: object) -> None:
    digest = "sha256:" + "b" * 64
    opened = OpenOrder("order-1", digest, "2.0.0", A, B, BOOT_ID, "Kexec", 0, 300, "Rollback", Stage.ARMED)
    opened = replace(opened, **changes)  # type: ignore[arg-type]
    await host.write_journal(Journal(MACHINE_ID, boots=(BOOT_ID,), open=opened))


def attributes(machine: FakeMachine, name: SlotName) -> Attributes:
    return read_slots(machine.root.at("/dev/vda"))[name].attributes


def boots_next(machine: FakeMachine) -> SlotName | None:
    chosen = preview(machine.root.at("/dev/vda"))
    return chosen.name if chosen else None


async def test_it_sees_a_fresh_machine(host: LinuxHost, machine: FakeMachine) -> None:
    sight = await host.look()
    assert (sight.disk.booted, sight.disk.a.partition, sight.disk.b.partition) == (A, 2, 3)
    assert (sight.disk.a.version, sight.disk.a.digest, sight.disk.b.attributes) == ("1.0.0", None, GIVEN_UP)
    assert (sight.boot.boot_id, sight.boot.machine_id, sight.boot.method) == (BOOT_ID, MACHINE_ID, "Firmware")
    assert (sight.facts.os_image, sight.facts.architecture, sight.facts.kexec) == (
        "Test OS 1", platform.machine(), True,
    )  # fmt: skip
    decision = sight.facts.boot_decision
    assert decision is not None
    assert (decision.method, decision.reason, decision.deadman) == ("Kexec", "Supported", "Missing")
    assert (sight.journal, sight.api_answered, sight.unhealthy) == (None, False, None)
    await host.note_api_answer()
    assert (await host.look()).api_answered
    assert machine.root.at("/run/careen/committed").exists()


async def test_what_os_release_says_counts_while_nobody_knows_more(machine: FakeMachine, tmp_path: Path) -> None:
    repository = Repository.create(tmp_path / "shop")
    release = repository.publish("2.0.0")
    machine.write("/usr/share/careen/root.json", repository.trust_root.read_bytes())
    machine.write("/etc/os-release", "IMAGE_VERSION=1.0.0\nIMAGE_ID=another\n")
    async with (
        ReleaseServer(repository).running() as server,
        LinuxHost(settings(), root=machine.root, commands=machine.commands) as host,
    ):
        image = StageImage("o", B, server.url, release.path, release.digest, release.size_bytes, "2.0.0")
        with pytest.raises(StageError, match="is of the product careen-sandbox; this machine runs another"):
            await host.admit(image)


async def test_one_agent_a_machine(host: LinuxHost, machine: FakeMachine) -> None:
    with pytest.raises(OSError, match="in use by another agent"):
        async with LinuxHost(settings(), root=machine.root, commands=machine.commands):
            pass


async def test_arming_by_kexec_loads_a_checked_kernel_and_leaves_every_reset_to_the_old_slot(
    host: LinuxHost, machine: FakeMachine, kexec: FakeKexec, slot_tree: Path
) -> None:
    hold(machine, B, document())
    await journal(host)
    await host.arm(B, "Kexec")
    assert kexec.loaded is not None
    kernel, initrd, line = kexec.loaded
    assert (kernel, initrd) == (KERNEL, INITRD)
    assert line == (
        f"console=ttyS0 quiet careen.slot=B careen.usrhash={ROOT_HASH} careen.boot=kexec careen.order=order-1 "
        "panic=10 oops=panic softlockup_panic=1 hung_task_panic=1"
    )
    assert (attributes(machine, B), boots_next(machine)) == (TRIAL, A)
    assert not machine.root.at("/run/careen/next").exists()
    await host.disarm(B)
    assert (attributes(machine, B), kexec.loaded) == (GIVEN_UP, None)


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOSYS, errno.EBUSY, errno.ENOEXEC, errno.ENOMEM])
async def test_a_kernel_that_is_refused_is_told_before_anything_is_armed(
    host: LinuxHost, machine: FakeMachine, kexec: FakeKexec, slot_tree: Path, code: int
) -> None:
    hold(machine, B, document())
    await journal(host)
    kexec.error = code
    with pytest.raises(KexecRefusedError, match="refused to load"):
        await host.arm(B, "Kexec")
    assert attributes(machine, B) == GIVEN_UP


async def test_another_failure_of_the_load_is_no_refusal(
    host: LinuxHost, machine: FakeMachine, kexec: FakeKexec, slot_tree: Path
) -> None:
    hold(machine, B, document())
    kexec.error = errno.EIO
    with pytest.raises(OSError, match="kexec_file_load"):
        await host.arm(B, "Kexec")
    assert attributes(machine, B) == GIVEN_UP


@pytest.mark.parametrize("path", ["boot/vmlinuz", "boot/initrd"])
@pytest.mark.parametrize("damage", ["other", "missing", "link"])
async def test_a_kernel_or_initrd_that_is_not_the_signed_one_is_never_loaded(
    host: LinuxHost, machine: FakeMachine, kexec: FakeKexec, slot_tree: Path, path: str, damage: str
) -> None:
    hold(machine, B, document())
    file = slot_tree / path
    data = file.read_bytes()
    file.unlink()
    if damage == "other":
        file.write_bytes(data[:-1] + b"!")
    if damage == "link":
        (slot_tree / "elsewhere").write_bytes(data)
        file.symlink_to(slot_tree / "elsewhere")
    with pytest.raises(DiskError, match=path):
        await host.arm(B, "Kexec")
    assert (kexec.calls, attributes(machine, B)) == ([], GIVEN_UP)


async def test_a_release_without_a_kernel_is_refused(host: LinuxHost, machine: FakeMachine, slot_tree: Path) -> None:
    hold(machine, B, document(kernel=False))
    for method in ("Kexec", "Firmware"):
        with pytest.raises(StageError, match="has no kernel") as caught:
            await host.arm(B, method)  # type: ignore[arg-type]
        assert caught.value.fault.class_ == "Refused"
    assert attributes(machine, B) == GIVEN_UP


async def test_arming_for_the_firmware_gives_one_try_and_loads_nothing(
    host: LinuxHost, machine: FakeMachine, kexec: FakeKexec, slot_tree: Path
) -> None:
    hold(machine, B, document())
    await host.arm(B, "Firmware")
    assert (attributes(machine, B), boots_next(machine)) == (Attributes(2, 1, False), B)
    assert kexec.calls == ["unload"]


async def test_debians_own_kexec_at_reboot_is_refused(host: LinuxHost, machine: FakeMachine, slot_tree: Path) -> None:
    hold(machine, B, document())
    machine.write("/etc/default/kexec", "LOAD_KEXEC=true\n")
    machine.write("/vmlinuz", "")
    with pytest.raises(StageError, match="LOAD_KEXEC"):
        await host.arm(B, "Firmware")


async def test_nothing_is_touched_beside_another_updater(
    host: LinuxHost, machine: FakeMachine, slot_tree: Path
) -> None:
    change_slots(machine.root.at("/dev/vda"), lambda slots: slots.with_attributes(B, Attributes(1, 0, True)))
    machine.write("/proc/99/comm", "update_engine\n")
    image = StageImage("order-1", B, "http://127.0.0.1:1/", "releases/2.0.0.json", "sha256:" + "0" * 64, 1, "2.0.0")
    for call in (host.admit(image), host.invalidate(B), host.stage(image, lambda _: None), host.arm(B, "Kexec")):
        with pytest.raises(StageError, match="update_engine runs on this machine") as caught:
            await call
        assert caught.value.fault.class_ == "Refused"
    assert attributes(machine, B) == Attributes(1, 0, True)


async def test_a_passive_slot_in_use_is_not_even_given_up(host: LinuxHost, machine: FakeMachine) -> None:
    change_slots(machine.root.at("/dev/vda"), lambda slots: slots.with_attributes(B, Attributes(1, 0, True)))
    machine.mount("254:0 /usr ext4 /dev/mapper/usr", "252:3 /mnt ext4 /dev/vda3")
    with pytest.raises(DiskError, match="/dev/vda3 is mounted at /mnt"):
        await host.invalidate(B)
    assert attributes(machine, B) == Attributes(1, 0, True)
    machine.mount("254:0 /usr ext4 /dev/mapper/usr")
    await host.invalidate(B)
    assert attributes(machine, B) == GIVEN_UP


def ran(machine: FakeMachine, *starts: str) -> list[str]:
    """Which of these beginnings of commands were run, in the order in which they were."""
    return [start for line in machine.commands.ran for start in starts if line.startswith(start)]


async def test_kexec_goes_through_systemd_with_a_forced_reset_behind_it(
    host: LinuxHost, machine: FakeMachine, kexec: FakeKexec, slot_tree: Path
) -> None:
    hold(machine, B, document())
    await journal(host)
    await host.arm(B, "Kexec")
    await host.request_reboot("Kexec", B)
    assert ran(machine, "systemd-run", "systemctl kexec", "systemctl reboot") == ["systemd-run", "systemctl kexec"]
    planted = next(line for line in machine.commands.ran if line.startswith("systemd-run"))
    assert "DefaultDependencies=no" in planted
    assert "read -r -t 180" in planted
    assert kexec.calls == ["load"]


@pytest.mark.parametrize("stage", [Stage.ARMED, Stage.UNDOING, Stage.REQUESTED])
async def test_a_kernel_that_a_killed_agent_has_loaded_stays_only_for_a_boot_that_was_asked_for(
    machine: FakeMachine, kexec: FakeKexec, stage: Stage
) -> None:
    async with LinuxHost(settings(), root=machine.root, commands=machine.commands, kexec=kexec) as host:
        await journal(host, stage=stage)
    kexec.loaded = b"", b"", ""
    async with LinuxHost(settings(), root=machine.root, commands=machine.commands, kexec=kexec):
        assert kexec.is_loaded() is (stage is Stage.REQUESTED)


async def test_a_kernel_that_somebody_else_has_loaded_is_left_alone(machine: FakeMachine, kexec: FakeKexec) -> None:
    kexec.loaded = b"", b"", ""
    async with LinuxHost(settings(), root=machine.root, commands=machine.commands, kexec=kexec):
        assert kexec.is_loaded()


async def test_a_kernel_that_got_lost_is_loaded_again(
    host: LinuxHost, machine: FakeMachine, kexec: FakeKexec, slot_tree: Path
) -> None:
    hold(machine, B, document())
    await journal(host)
    await host.request_reboot("Kexec", B)
    assert kexec.loaded is not None
    kexec.unload()
    kexec.error = errno.EPERM
    with pytest.raises(RebootError, match="kexec: the kernel refused"):
        await host.request_reboot("Kexec", B)


async def test_a_request_that_systemd_refuses_is_taken_back(host: LinuxHost, machine: FakeMachine) -> None:
    machine.commands.answers["systemctl reboot"] = Answer(1, "", "Access denied\n")
    with pytest.raises(RebootError, match="systemctl reboot: Access denied"):
        await host.request_reboot("Firmware", A)
    assert machine.commands.ran[-1] == "systemctl stop careen-forced-reboot.service"


def two_disks(machine: FakeMachine, _kexec: FakeKexec) -> None:
    machine.add_disk("sda", major=8, order=("USR-A", "USR-B"))


def stuck_kernel(_machine: FakeMachine, kexec: FakeKexec) -> None:
    def unload() -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    kexec.unload = unload  # type: ignore[method-assign]


def lost_document(machine: FakeMachine, _kexec: FakeKexec) -> None:
    machine.root.at("/var/lib/careen/slots.json").unlink()


@pytest.mark.parametrize(
    ("break_it", "method"), [(two_disks, "Firmware"), (stuck_kernel, "Firmware"), (lost_document, "Kexec")]
)
async def test_whatever_fails_before_systemd_is_asked_is_a_proven_failure(
    host: LinuxHost, machine: FakeMachine, kexec: FakeKexec, break_it: Callable[..., None], method: Method
) -> None:
    hold(machine, B, document())
    await journal(host)
    break_it(machine, kexec)
    with pytest.raises(RebootError):
        await host.request_reboot(method, B)
    assert ran(machine, "systemctl kexec", "systemctl reboot") == []


@pytest.mark.parametrize(("limit", "deadman"), [("359", "Missing"), ("360", "HardwareWatchdog")])
async def test_a_watchdog_counts_if_it_can_wait_for_shutdown_and_boot(
    machine: FakeMachine, kexec: FakeKexec, limit: str, deadman: str
) -> None:
    for name, text in {"identity": "i6300ESB timer", "nowayout": "0", "max_timeout": limit}.items():
        machine.write(f"/sys/class/watchdog/watchdog0/{name}", text)
    machine.write("/sys/module/watchdog/parameters/stop_on_reboot", "0")
    machine.write("/dev/watchdog0", "")
    async with LinuxHost(settings(), root=machine.root, commands=machine.commands, kexec=kexec) as host:
        decision = (await host.look()).facts.boot_decision
    assert decision is not None
    assert decision.deadman == deadman


async def test_without_the_watchdog_that_was_promised_nothing_is_requested(
    host: LinuxHost, machine: FakeMachine, slot_tree: Path
) -> None:
    hold(machine, B, document())
    await journal(host, deadman="HardwareWatchdog")
    await host.arm(B, "Kexec")
    with pytest.raises(RebootError, match="watchdog that was to end a trial that hangs is gone"):
        await host.request_reboot("Kexec", B)
    assert ran(machine, "systemctl kexec") == []


@pytest.mark.parametrize("fault", ["watchdog", "kernel", "systemd"])
async def test_a_watchdog_is_not_left_armed_for_a_boot_that_does_not_come(
    machine: FakeMachine, kexec: FakeKexec, slot_tree: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def ioctl(*_: object) -> None:
        if fault == "watchdog":
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("careen.agent.linux.watchdog.fcntl.ioctl", ioctl)
    shown = {"identity": "i6300ESB timer", "nowayout": "0", "max_timeout": "2000", "state": "active"}
    for name, text in shown.items():
        machine.write(f"/sys/class/watchdog/watchdog0/{name}", text)
    machine.write("/sys/module/watchdog/parameters/stop_on_reboot", "0")
    device = machine.write("/dev/watchdog0", "")
    if fault == "systemd":
        machine.commands.answers["systemctl kexec"] = Answer(1, "", "Access denied")
    kexec.error = errno.EPERM if fault == "kernel" else 0
    hold(machine, B, document())
    async with LinuxHost(settings(), root=machine.root, commands=machine.commands, kexec=kexec) as host:
        await journal(host)
        with pytest.raises(RebootError):
            await host.request_reboot("Kexec", B)
        assert device.read_bytes() == b"V"


async def test_without_the_forced_reset_nothing_is_requested(host: LinuxHost, machine: FakeMachine) -> None:
    machine.commands.answers["systemd-run"] = Answer(1, "", "no bus")
    machine.commands.answers["systemctl is-active"] = Answer(3, "inactive\n")
    with pytest.raises(RebootError, match="was not started: no bus"):
        await host.request_reboot("Firmware", A)
    assert ran(machine, "systemctl reboot") == []


async def test_a_loaded_kernel_is_dropped_before_a_reboot_by_the_firmware(
    host: LinuxHost, machine: FakeMachine, kexec: FakeKexec
) -> None:
    kexec.loaded = b"", b"", ""
    await host.request_reboot("Firmware", A)
    assert kexec.loaded is None
    assert ran(machine, "systemctl reboot", "systemctl kexec") == ["systemctl reboot"]


async def test_the_booted_slot_is_started_again_without_the_words_of_a_trial(
    host: LinuxHost, machine: FakeMachine, kexec: FakeKexec
) -> None:
    hold(machine, A, document())
    machine.write("/usr/boot/vmlinuz", KERNEL)
    machine.write("/usr/boot/initrd", INITRD)
    await host.request_reboot("Kexec", A)
    assert kexec.loaded is not None
    assert "careen.slot=A" in kexec.loaded[2]
    assert "careen.order" not in kexec.loaded[2]
    assert ran(machine, "systemctl kexec") == ["systemctl kexec"]
    kexec.error = errno.EPERM
    await host.request_reboot("Kexec", A)
    assert ran(machine, "systemctl kexec", "systemctl reboot")[-1] == "systemctl reboot"


@pytest.fixture
def esp(machine: FakeMachine) -> Path:
    """The machine boots slot A by systemd-boot; the ESP has the kernel of an older release of slot B."""
    machine.write(LOADER_INFO, b"\x06\0\0\0" + "systemd-boot 252\0".encode("utf-16-le"))
    machine.mount("254:0 /usr ext4 /dev/mapper/usr", "252:1 /efi vfat /dev/vda1")
    machine.write("/efi/loader/entries/careen-A.conf", "title careen A\nsort-key careen\nversion 1\n")
    machine.write("/efi/careen/b/vmlinuz", b"an older kernel")
    machine.write("/efi/careen/b/entry", "version 2\noptions careen.slot=B careen.usrhash=0\n")
    return machine.root.at("/efi")


async def test_what_the_boot_loader_missed_at_the_arming_is_told_before_the_reboot_or_there_is_none(
    host: LinuxHost, machine: FakeMachine, esp: Path, slot_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    hold(machine, B, document())
    await journal(host)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfileobj", full)
        with pytest.raises(DiskError, match="No space left"):
            await host.arm(B, "Kexec")
        with pytest.raises(RebootError, match="No space left"):
            await host.request_reboot("Kexec", B)
        assert ran(machine, "systemctl kexec") == []
    assert not (esp / "careen/b/vmlinuz").exists()
    await host.request_reboot("Kexec", B)
    assert (esp / "careen/b/vmlinuz").read_bytes() == KERNEL
    assert f"careen.usrhash={ROOT_HASH}" in (esp / "careen/b/entry").read_text()
    assert ran(machine, "systemctl kexec") == ["systemctl kexec"]


@pytest.fixture
def trial(bare: FakeMachine) -> FakeMachine:
    """A machine that runs slot B on trial."""
    bare.add_disk("vda", attributes={"USR-B": TRIAL})
    bare.run_from("vda3")
    bare.write("/proc/cmdline", "quiet careen.slot=B careen.boot=kexec careen.order=order-1")
    return bare


async def test_a_trial_is_judged_by_systemd_and_marked_good(trial: FakeMachine, kexec: FakeKexec) -> None:
    trial.commands.answers["systemctl is-system-running"] = Answer(1, "starting\n")
    async with LinuxHost(settings(), root=trial.root, commands=trial.commands, kexec=kexec) as host:
        sight = await host.look()
        assert (sight.disk.booted, sight.boot.method, sight.unhealthy) == (B, "Kexec", "systemd says starting")
        trial.commands.answers["systemctl is-system-running"] = Answer(0, "running\n")
        assert (await host.look()).unhealthy is None
        assert not trial.root.at("/run/careen/committed").exists()
        await host.mark_good(B)
        assert attributes(trial, B) == Attributes(2, 0, True)
        assert trial.root.at("/run/careen/committed").exists()
        asked = len(trial.commands.ran)
        assert (await host.look()).unhealthy is None
        assert len(trial.commands.ran) == asked


async def test_a_trial_is_only_good_with_its_own_kernel_on_the_esp(trial: FakeMachine, kexec: FakeKexec) -> None:
    trial.write(LOADER_INFO, b"\x06\0\0\0" + "systemd-boot 252\0".encode("utf-16-le"))
    trial.mount("254:0 /usr ext4 /dev/mapper/usr", "252:1 /efi vfat /dev/vda1")
    trial.write("/efi/loader/entries/careen-A.conf", "version 1\n")
    trial.write("/efi/careen/b/vmlinuz", b"an older kernel")
    trial.write("/efi/careen/b/entry", "version 2\noptions careen.slot=B careen.usrhash=0\n")
    trial.root.at("/usr").mkdir()
    hold(trial, B, document())
    async with LinuxHost(settings(), root=trial.root, commands=trial.commands, kexec=kexec) as host:
        with pytest.raises(DiskError, match="no plain file boot/vmlinuz"):
            await host.mark_good(B)
        assert (attributes(trial, B), boots_next(trial)) == (TRIAL, A)
        trial.write("/usr/boot/vmlinuz", KERNEL)
        trial.write("/usr/boot/initrd", INITRD)
        await host.mark_good(B)
    assert attributes(trial, B) == Attributes(2, 0, True)
    assert trial.root.at("/efi/careen/b/vmlinuz").read_bytes() == KERNEL
    entry = trial.root.at("/efi/loader/entries/careen-B.conf").read_text()
    assert f"careen.usrhash={ROOT_HASH}" in entry
    assert "careen.order" not in entry


async def test_only_a_steady_agent_keeps_the_timer_away(
    trial: FakeMachine, kexec: FakeKexec, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = trial.root.at("/run/careen/trial-alive")
    async with LinuxHost(settings(), root=trial.root, commands=trial.commands, kexec=kexec) as host:
        await host.look()
        assert not alive.exists()
        monkeypatch.setattr("careen.agent.linux.host.STEADY_SECONDS", 0.0)
        await host.look()
        assert alive.exists()


async def test_a_trial_that_is_given_up_boots_the_old_slot(trial: FakeMachine, kexec: FakeKexec) -> None:
    async with LinuxHost(settings(), root=trial.root, commands=trial.commands, kexec=kexec) as host:
        await host.abandon(B)
        assert (attributes(trial, B), boots_next(trial)) == (GIVEN_UP, A)


async def test_what_the_staged_release_needs_and_declares_is_in_the_decision(
    host: LinuxHost, machine: FakeMachine
) -> None:
    hold(machine, B, document(capabilities=("trial-timer",)))
    machine.write("/proc/meminfo", "MemAvailable: 10 kB\n")
    decision = (await host.look()).facts.boot_decision
    assert decision is not None
    assert (decision.method, decision.reason, decision.deadman) == ("Firmware", "LowMemory", "TrialTimer")


async def test_a_reset_is_left_to_the_next_boot(host: LinuxHost, machine: FakeMachine) -> None:
    await host.prepare_reset()
    assert (await host.look()).reset_prepared
    assert machine.root.at("/careen-reset").read_text().startswith("careen-reset 1\n")
    await host.drop_reset()
    assert not (await host.look()).reset_prepared
