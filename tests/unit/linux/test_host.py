"""The Linux host looks: what it sees of its machine, and how it judges a trial."""

from __future__ import annotations

import errno
import platform
from pathlib import Path

import pytest

from careen.agent.actions import StageImage
from careen.agent.linux.facts import read_uptime
from careen.agent.linux.host import LinuxHost
from careen.agent.linux.root import Answer
from careen.agent.record import Stage
from careen.agent.staging.fault import StageError
from careen.disk.types import GIVEN_UP, Attributes
from careen.sandbox.releases import ReleaseServer, Repository
from linux_hosts import (
    A,
    B,
    FakeKexec,
    attributes,
    document,
    hold,
    journal,
    settings,
)
from linux_machines import BOOT_ID, MACHINE_ID, FakeMachine


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


async def test_copies_that_a_killed_agent_left_take_no_room(machine: FakeMachine) -> None:
    left = machine.write("/run/careen/next/kernel", "x" * 1000)
    async with LinuxHost(settings(), root=machine.root, commands=machine.commands):
        assert not left.exists()


async def test_one_agent_a_machine(host: LinuxHost, machine: FakeMachine) -> None:
    with pytest.raises(OSError, match="in use by another agent"):
        async with LinuxHost(settings(), root=machine.root, commands=machine.commands):
            pass


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


@pytest.mark.parametrize(
    ("said", "setting", "after"),
    [("1", "", "0"), ("1", "kernel.panic = 5\n -kernel.hung_task_panic=1\n", "1"), (None, "", "1")],
)
async def test_a_good_system_does_not_panic_for_what_a_trial_is_reset_for(
    trial: FakeMachine, kexec: FakeKexec, said: str | None, setting: str, after: str
) -> None:
    line = trial.root.at("/proc/cmdline").read_text().strip()
    trial.write("/proc/cmdline", line if said is None else f"{line} hung_task_panic={said} oops=panic\n")
    trial.write("/etc/sysctl.d/50-mine.conf", setting)
    shown = trial.write("/proc/sys/kernel/hung_task_panic", "1\n")
    async with LinuxHost(settings(), root=trial.root, commands=trial.commands, kexec=kexec) as host:
        await host.look()
        assert shown.read_text() == "1\n"
        await host.mark_good(B)
        assert shown.read_text().strip() == after


async def test_only_a_steady_agent_keeps_the_timer_away(
    trial: FakeMachine, kexec: FakeKexec, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = trial.root.at("/run/careen/trial-alive")
    async with LinuxHost(settings(), root=trial.root, commands=trial.commands, kexec=kexec) as host:
        await host.look()
        assert not alive.exists()
        monkeypatch.setattr("careen.agent.linux.host.STEADY_SECONDS", 0.0)
        before = int(read_uptime())
        await host.look()
        assert before <= int(alive.read_text()) <= read_uptime()


async def test_a_full_disk_does_not_hide_the_machine(
    machine: FakeMachine, kexec: FakeKexec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    # It came back from a trial that was lost without a word, which is held against kexec.
    async with LinuxHost(settings(), root=machine.root, commands=machine.commands, kexec=kexec) as host:
        await journal(host, stage=Stage.REQUESTED)
    machine.write("/proc/sys/kernel/random/boot_id", "after")
    monkeypatch.setattr("careen.agent.linux.crashes.write_durably", fail)
    monkeypatch.setattr("careen.agent.linux.experience.write_durably", fail)
    async with LinuxHost(settings(), root=machine.root, commands=machine.commands, kexec=kexec) as host:
        sight = await host.look()
    assert sight.journal is not None
    assert sight.journal.open is not None
    assert sight.facts.kexec_suspect == sight.journal.open.digest


async def test_what_the_staged_release_needs_and_declares_is_in_the_decision(
    host: LinuxHost, machine: FakeMachine
) -> None:
    hold(machine, B, document(capabilities=("trial-timer",)))
    machine.write("/proc/meminfo", "MemAvailable: 10 kB\n")
    decision = (await host.look()).facts.boot_decision
    assert decision is not None
    assert (decision.method, decision.reason, decision.deadman) == ("Firmware", "LowMemory", "TrialTimer")
