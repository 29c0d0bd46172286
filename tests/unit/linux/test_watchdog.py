"""The watchdog: counted only if it survives a kexec, armed for long enough, fed in the trial, handed back after it."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from careen.agent.linux.root import Answer
from careen.agent.linux.watchdog import WatchdogError, WatchdogKeeper, find_watchdog
from linux_machines import FakeMachine

STOP = "/sys/module/watchdog/parameters/stop_on_reboot"


def add(machine: FakeMachine, identity: str = "i6300ESB timer", *, stop: str = "0") -> None:
    machine.write("/sys/class/watchdog/watchdog0/identity", identity + "\n")
    machine.write("/sys/class/watchdog/watchdog0/nowayout", "0\n")
    machine.write("/dev/watchdog0", "")
    machine.write(STOP, stop + "\n").chmod(0o444)


def test_a_hardware_watchdog_that_keeps_running_counts(bare: FakeMachine) -> None:
    assert find_watchdog(bare.root) is None
    add(bare)
    found = find_watchdog(bare.root)
    assert found is not None
    assert found.lasts(180)


def test_one_that_is_stopped_at_a_reboot_does_not(bare: FakeMachine) -> None:
    add(bare, stop="-1")
    found = find_watchdog(bare.root)
    assert found is not None
    assert not found.lasts(180)
    bare.root.at(STOP).chmod(0o644)
    found = find_watchdog(bare.root)
    assert found is not None
    assert found.lasts(180)


def test_a_software_watchdog_dies_with_its_kernel(bare: FakeMachine) -> None:
    add(bare, "Software Watchdog")
    assert find_watchdog(bare.root) is None


def test_without_an_identity_only_one_with_a_device_counts(bare: FakeMachine) -> None:
    add(bare, "")
    assert find_watchdog(bare.root) is None
    bare.write("/sys/class/watchdog/watchdog0/device/vendor", "0x8086")
    assert find_watchdog(bare.root) is not None


@pytest.mark.parametrize("order", [("iTCO_wdt", "iamt_wdt"), ("iamt_wdt", "iTCO_wdt")])
def test_of_two_the_same_one_counts_in_whatever_order_their_drivers_came(
    bare: FakeMachine, order: tuple[str, str]
) -> None:
    for number, identity in enumerate(order):
        bare.write(f"/sys/class/watchdog/watchdog{number}/identity", identity + "\n")
        bare.write(f"/dev/watchdog{number}", "")
    found = find_watchdog(bare.root)
    assert found is not None
    assert (found.identity, found.name) == ("iTCO_wdt", f"watchdog{order.index('iTCO_wdt')}")


def test_one_that_can_not_wait_long_enough_does_not_count(bare: FakeMachine) -> None:
    add(bare)
    bare.write("/sys/class/watchdog/watchdog0/max_timeout", "60\n")
    found = find_watchdog(bare.root)
    assert found is not None
    assert (found.lasts(60), found.lasts(61)) == (True, False)


class Driver:
    """What the ioctls do. limit: the longest timeout it takes."""

    def __init__(self) -> None:
        self.limit = 2000
        self.timeout = 0

    def ioctl(self, _fd: int, request: int, buffer: Any, _mutate: bool) -> int:
        if request == 0xC0045706:
            self.timeout = min(struct.unpack("i", buffer)[0], self.limit)
            buffer[:] = struct.pack("i", self.timeout)
        return 0


@pytest.fixture(autouse=True)
def feed_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("careen.agent.linux.watchdog._FEED_PARTS", 50)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    made = Driver()
    monkeypatch.setattr("careen.agent.linux.watchdog.fcntl.ioctl", made.ioctl)
    return made


@pytest.fixture
def keeper(bare: FakeMachine, driver: Driver) -> Iterator[WatchdogKeeper]:
    add(bare)
    found = find_watchdog(bare.root)
    assert found is not None
    made = WatchdogKeeper(bare.root, bare.commands, found)
    yield made
    made.close()


def written(machine: FakeMachine) -> bytes:
    return machine.root.at("/dev/watchdog0").read_bytes()


def test_armed_it_goes_on_when_the_agent_ends(bare: FakeMachine, keeper: WatchdogKeeper, driver: Driver) -> None:
    keeper.arm(180)
    keeper.close()
    assert driver.timeout == 180
    assert written(bare) == b""


def test_a_shutdown_that_takes_its_time_does_not_eat_up_the_trials(keeper: WatchdogKeeper, driver: Driver) -> None:
    keeper.arm(180, shutdown=120)
    assert driver.timeout == 300
    driver.limit = 299
    with pytest.raises(WatchdogError, match="waits 299 s at most; needed: 300"):
        keeper.arm(180, shutdown=120)


def test_called_off_it_is_stopped(bare: FakeMachine, keeper: WatchdogKeeper) -> None:
    keeper.arm(180)
    keeper.disarm()
    assert written(bare) == b"V"


def test_a_timeout_that_is_too_short_is_an_error(keeper: WatchdogKeeper, driver: Driver) -> None:
    driver.limit = 100
    with pytest.raises(WatchdogError, match="waits 100 s at most; needed: 180"):
        keeper.arm(180)


async def test_one_whose_arming_failed_is_stopped_or_fed(
    bare: FakeMachine, keeper: WatchdogKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("careen.agent.linux.watchdog.fcntl.ioctl", fail)
    with pytest.raises(WatchdogError, match="Input/output error"):
        keeper.arm(180)
    keeper.disarm()
    assert written(bare) == b"V"
    bare.write("/sys/class/watchdog/watchdog0/nowayout", "1\n")
    with pytest.raises(WatchdogError):
        keeper.arm(180)
    keeper.disarm()
    await asyncio.sleep(0.05)
    assert written(bare) == b"\0"


async def test_one_that_a_killed_agent_left_armed_is_stopped(bare: FakeMachine, keeper: WatchdogKeeper) -> None:
    bare.write("/sys/class/watchdog/watchdog0/state", "active\n")
    keeper.disarm()
    assert written(bare) == b"V"


def test_where_systemd_holds_it_systemd_arms_it(
    bare: FakeMachine, keeper: WatchdogKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def busy(path: Any, *args: int) -> int:
        if str(path).endswith("watchdog0"):
            raise OSError(16, "Device or resource busy")
        return real(path, *args)

    monkeypatch.setattr(os, "open", busy)
    keeper.arm(180, shutdown=120)
    assert bare.commands.ran[-1].endswith("KExecWatchdogUSec t 180000000")
    keeper.disarm()
    assert bare.commands.ran[-1].endswith("KExecWatchdogUSec t 0")
    bare.commands.answers["busctl"] = Answer(1, "", "no such property")
    with pytest.raises(WatchdogError, match="held, and not by systemd"):
        keeper.arm(180)


async def test_the_trial_feeds_it_and_hands_it_back(bare: FakeMachine, keeper: WatchdogKeeper) -> None:
    assert keeper.take_over(1)
    await asyncio.sleep(0.2)
    fed = written(bare)
    assert len(fed) >= 2
    assert set(fed) == {0}
    keeper.hand_back()
    after = written(bare)
    assert after.endswith(b"V")
    await asyncio.sleep(0.05)
    assert written(bare) == after


@pytest.mark.parametrize("nowayout", ["1\n", None])
async def test_one_that_can_not_be_stopped_is_fed_on(
    bare: FakeMachine, keeper: WatchdogKeeper, nowayout: str | None
) -> None:
    if nowayout is None:
        # A kernel without attributes for watchdogs: nobody knows.
        bare.root.at("/sys/class/watchdog/watchdog0/nowayout").unlink()
    else:
        bare.write("/sys/class/watchdog/watchdog0/nowayout", nowayout)
    assert keeper.take_over(1)
    keeper.hand_back()
    await asyncio.sleep(0.1)
    fed = len(written(bare))
    await asyncio.sleep(0.1)
    assert len(written(bare)) > fed
    assert b"V" not in written(bare)
    # The agent ends, perhaps for good: what can be done is done.
    keeper.close()
    assert written(bare).endswith(b"V")


async def test_one_that_can_not_be_stopped_is_systemds_when_the_agent_goes(
    bare: FakeMachine, keeper: WatchdogKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare.write("/sys/class/watchdog/watchdog0/nowayout", "1\n")
    assert keeper.take_over(180)
    real = os.open

    def open_unless_systemd_has_it(path: Any, *args: int) -> int:
        told = [line for line in bare.commands.ran if line.endswith("RuntimeWatchdogUSec t 180000000")]
        if str(path).endswith("watchdog0") and told:
            raise OSError(16, "Device or resource busy")
        return real(path, *args)

    monkeypatch.setattr(os, "open", open_unless_systemd_has_it)
    keeper.hand_back()
    fed = written(bare)
    await asyncio.sleep(0.1)
    keeper.close()
    assert written(bare) == fed
    assert b"V" not in fed
    # The next kexec finds it held, and has systemd arm it.
    keeper.arm(180)
    assert bare.commands.ran[-1].endswith("KExecWatchdogUSec t 180000000")
