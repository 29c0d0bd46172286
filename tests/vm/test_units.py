"""Units on a machine with a real systemd: every kind, what fails, a container, and an API server that is away."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from careen.disk.types import SlotName
from careen.units.file import unit_hash
from testos.site import Site
from vm_units import BOX_UNIT, Placed

from .conftest import COMMIT_SECONDS, ENDED, NAME, STAGE_AND_BOOT_SECONDS, Scene, start, wait_up

A, B = SlotName.A, SlotName.B
AWAY_SECONDS = 120.0
WEB = "[Service]\nExecStart=/bin/sleep 100000\n"
NEW = "[Service]\nExecStart=/bin/sleep 200000\n"
ENABLED = f"{WEB}\n[Install]\nWantedBy=multi-user.target\n"
STUBBORN = "[Service]\nExecStart=/bin/sh -c \"trap '' TERM; while :; do sleep 1; done\"\nTimeoutStopSec=8\n"
ONCE = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo run >> /run/once'\n"
STAYS = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n"
FAILS = "[Service]\nExecStart=/bin/false\n"
FLAPS = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart=/bin/false\nRestart=always\nRestartSec=1\n"
TARGET = "[Unit]\nDescription=A target of the cluster\n"
LONG = "[Service]\nType=oneshot\nTimeoutStartSec=infinity\nExecStart=/bin/sleep 100000\n"
TICK = "[Timer]\nOnActiveSec=1s\nAccuracySec=1s\n"
TOCK = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo tick >> /run/ticked'\n"
KNOCK = "[Socket]\nListenStream=127.0.0.1:7777\n"
DOOR = "[Service]\nExecStart=/bin/sleep 100000\n"
MARKS = ("MainPID", "InvocationID", "NRestarts", "ActiveEnterTimestampMonotonic")
"""What tells that a unit was neither stopped nor started anew."""

Begin = Callable[[], Placed]


@pytest.fixture
def begin(site: Site) -> Begin:
    """Switches the machine on, for its units."""

    def switch_on() -> Placed:
        start(site)
        return Placed(site, NAME)

    return switch_on


@pytest.mark.short
def test_units_of_every_kind(begin: Begin, scene: Scene) -> None:
    scene.expect("units: services, instances, oneshots, a timer, a socket, one that fails", "each as systemd has it")
    placed = begin()
    shell = placed.machine.shell
    placed.submit("web.service", ENABLED)
    for number in (1, 2):
        placed.submit(f"box@{number}.service", WEB)
    placed.submit("once.service", ONCE)
    placed.submit("stays.service", STAYS)
    placed.submit("fails.service", FAILS)
    placed.submit("tock.service", TOCK, "loaded")
    placed.submit("door.service", DOOR, "loaded")

    report = placed.wait_active("web.service")
    assert (report["hash"], report["load"], report["sub"], report["launched"]) == (
        unit_hash(ENABLED), "loaded", "running", True,
    )  # fmt: skip
    assert shell.run("cat /run/careen/units/web.service") == ENABLED.strip()
    shell.run("test -L /run/systemd/system/multi-user.target.wants/web.service")
    for number in (1, 2):
        placed.wait_active(f"box@{number}.service")
    assert placed.show("box@1.service", "MainPID") != placed.show("box@2.service", "MainPID")
    placed.wait("once.service", lambda told: told.get("launched") and told["active"] == "inactive")
    assert placed.wait_active("stays.service")["sub"] == "exited"
    failed = placed.wait_active("fails.service", "failed")
    assert failed["launched"], failed

    # A socket or a timer can't be started before systemd knows what it is for.
    for name in ("tock.service", "door.service"):
        placed.wait_loaded(name)
    placed.submit("tock.timer", TICK)
    placed.submit("door.socket", KNOCK)
    placed.wait_active("tock.timer")
    placed.wait_there("test -e /run/ticked")
    assert not placed.reports["tock.service"]["launched"]

    assert placed.wait_active("door.socket")["sub"] == "listening"
    shell.try_run("timeout 5 busybox nc 127.0.0.1 7777 </dev/null")
    assert placed.wait_active("door.service")["sub"] == "running"
    time.sleep(10)
    assert placed.show("door.service", "ActiveState") == {"ActiveState": "active"}, "its socket started it"

    # Nothing of all that is done twice, however often the agent starts.
    shell.run("systemctl restart careen-agent")
    time.sleep(20)
    assert shell.run("cat /run/once") == "run"
    scene.note("each as systemd has it", "web, box@1, box@2 run; once and stays ended well; fails failed, once")


def test_nothing_stops_while_the_api_server_is_away(begin: Begin, scene: Scene) -> None:
    scene.expect("units: API server away for two minutes, and the agent restarted meanwhile", "nothing has stopped")
    placed = begin()
    shell = placed.machine.shell
    names = ("web.service", "stays.service", "ours.target", "fails.service")
    for name, content in zip(names, (WEB, STAYS, TARGET, FAILS), strict=True):
        placed.submit(name, content)
    for name, active in zip(names, ("active", "active", "active", "failed"), strict=True):
        placed.wait_active(name, active)
    before = {name: placed.show(name, *MARKS) for name in names}
    placed.machine.set_network(False)
    time.sleep(AWAY_SECONDS / 2)
    shell.run("systemctl restart careen-agent")
    time.sleep(AWAY_SECONDS / 2)
    assert {name: placed.show(name, *MARKS) for name in names} == before
    # What systemd does meanwhile is told when there is somebody to tell.
    shell.run("systemctl kill --signal=KILL web.service")
    placed.machine.set_network(True)
    placed.wait("web.service", lambda report: report.get("active") == "failed", COMMIT_SECONDS)
    after = {name: placed.show(name, *MARKS) for name in names if name != "web.service"}
    assert after == {name: before[name] for name in after}
    scene.note("nothing has stopped", "the same process, the same invocation, before and after")


def test_a_unit_changes_stops_and_goes(begin: Begin, scene: Scene) -> None:
    scene.expect("units: new content, stop, start, removal, a stop that takes long", "each done once, nothing left")
    placed = begin()
    shell = placed.machine.shell
    placed.submit("web.service", ENABLED)
    placed.submit("other.service", WEB)
    placed.wait_active("web.service")
    placed.wait_active("other.service")
    other = placed.show("other.service", *MARKS)
    first = placed.show("web.service", "MainPID")["MainPID"]

    placed.want("web.service", content=NEW)
    placed.wait("web.service", lambda told: told.get("hash") == unit_hash(NEW) and told["active"] == "active")
    second = placed.show("web.service", "MainPID")["MainPID"]
    assert first != second
    assert "200000" in shell.run(f"tr '\\0' ' ' < /proc/{second}/cmdline")
    assert shell.try_run("test -e /run/systemd/system/multi-user.target.wants/web.service")[0] != 0

    placed.want("web.service", desiredState="loaded")
    placed.wait_active("web.service", "inactive")
    placed.want("web.service", desiredState="launched")
    placed.wait_active("web.service")

    placed.submit("stubborn.service", STUBBORN)
    placed.wait_active("stubborn.service")
    placed.destroy("stubborn.service")
    placed.destroy("web.service")
    placed.wait_gone("web.service")
    placed.wait_gone("stubborn.service")
    for name in ("web.service", "stubborn.service"):
        assert placed.show(name, "LoadState", "ActiveState") == {"LoadState": "not-found", "ActiveState": "inactive"}
        assert shell.run(f"find /run/systemd/system /run/careen/units -name '{name}*'") == ""
    assert placed.show("other.service", *MARKS) == other
    scene.note("each done once, nothing left", "web replaced, stopped, started, removed; other untouched")


def test_a_unit_runs_a_container(begin: Begin, scene: Scene) -> None:
    scene.expect("units: a container from a folder of the machine, by runc", "it runs, and stops")
    placed = begin()
    shell = placed.machine.shell
    placed.make_box()
    placed.submit("box.service", BOX_UNIT)
    placed.wait_active("box.service")
    placed.wait_there("runc list -q | grep -qx box")
    assert shell.run("runc exec box /bin/busybox hostname") == "box"
    placed.destroy("box.service")
    placed.wait_gone("box.service")
    assert shell.run("runc list -q") == ""
    scene.note("it runs, and stops", "its host name is its own")


def test_units_are_started_anew_after_a_reset(begin: Begin, site: Site, scene: Scene) -> None:
    scene.expect("units: the machine is reset", "all of them are started anew, a oneshot once more")
    placed = begin()
    placed.submit("web.service", WEB)
    placed.submit("once.service", ONCE)
    placed.wait_active("web.service")
    placed.wait("once.service", lambda told: told.get("launched"))
    boot, invocation = site.status(NAME)["bootID"], placed.show("web.service", "InvocationID")
    placed.machine.reset()
    wait_up(placed.machine, "1", A, "firmware")
    site.wait_boot(NAME, boot, COMMIT_SECONDS)
    placed.wait_there("systemctl -q is-active web.service", 150)
    assert placed.show("web.service", "InvocationID") != invocation
    placed.wait_there("test -e /run/once")
    assert placed.machine.shell.run("cat /run/once") == "run"
    placed.wait("once.service", lambda told: told.get("launched") and told["active"] == "inactive")
    scene.note("all of them are started anew, a oneshot once more", "web has another invocation")


def test_units_that_fail_or_take_long_do_not_undo_an_update(begin: Begin, site: Site, scene: Scene) -> None:
    scene.expect("units: an update of a machine with units that fail, flap and take for ever", "the new system")
    placed = begin()
    anyway = {"placement": {"interruptible": True}}
    placed.submit("fails.service", FAILS, **anyway)
    placed.submit("flaps.service", FLAPS, **anyway)
    placed.submit("long.service", LONG, **anyway)
    placed.wait_active("fails.service", "failed")
    placed.wait_active("long.service", "activating")
    site.ask_for("2")
    wait_up(placed.machine, "2", B, "kexec", STAGE_AND_BOOT_SECONDS)
    status = site.wait_phase(NAME, ENDED, "2", COMMIT_SECONDS)
    assert (status["step"]["phase"], status["booted"]) == ("Committed", "B"), status
    placed.wait_active("fails.service", "failed")
    placed.wait_active("long.service", "activating")
    scene.note("the new system", str(status["step"]))


def test_the_machines_own_units_are_left_alone(begin: Begin, scene: Scene) -> None:
    scene.expect("units: one with the name of the agent's own", "refused, and the agent runs on")
    placed = begin()
    before = placed.show("careen-agent.service", "MainPID", "FragmentPath")
    placed.submit("careen-agent.service", WEB)
    told = placed.wait("careen-agent.service", lambda report: report.get("message"))
    assert before["FragmentPath"] in told["message"], told
    assert "hash" not in told
    placed.destroy("careen-agent.service")
    placed.wait_gone("careen-agent.service")
    assert placed.show("careen-agent.service", "MainPID", "FragmentPath") == before
    scene.note("refused, and the agent runs on", told["message"])
