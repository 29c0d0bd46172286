"""Virtual machines for the tests: each on a disk of its own, as many at once as pytest has workers."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from careen.disk.table import read_slots
from careen.disk.types import SlotName
from careen.sandbox.workspace import Workspace
from testos.debian import TestOsError
from testos.disk import Identity, install, make_disk
from testos.image import Loader, OsImage, build_image, build_loader
from testos.machine import Machine, MachineOptions
from testos.site import Site
from testos.variant import Fault, Variant

from .matrix import VARIABLE, Matrix, Scene

HERE = Path(__file__).parent
BOOT_SECONDS = 300.0
"""How long a machine may take from its reset until its OS is up: ten times what it takes on two idle processors, three
times what it takes on two that are busy with other things."""
STAGE_SECONDS = 600.0
"""How long it may take from a policy until its release is on the passive slot."""
COMMIT_SECONDS = 300.0
"""How long it may take from a system that is up until the policy knows what became of it."""
TEST_SECONDS = 3600
NAME = "vm-1"
STAGE_AND_BOOT_SECONDS = STAGE_SECONDS + BOOT_SECONDS
"""How long it may take from a policy until the new system is up."""
ENDED = ("Committed", "RolledBack", "Failed")
"""Phases in which an order is done with."""

MakeMachine = Callable[..., Machine]


def pytest_configure(config: pytest.Config) -> None:
    """Keep a table of what comes of the scenarios, if somebody wants it. Workers tell theirs to the one that has it."""
    if os.environ.get(VARIABLE) and not _is_worker(config):
        config.pluginmanager.register(_Rows(Matrix()), "fault-matrix")


class _Rows:
    def __init__(self, matrix: Matrix) -> None:
        self._matrix = matrix

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take a row, and write all of them: a run that is broken off leaves those that it has."""
        if report.nodeid.startswith("tests/vm/"):
            self._matrix.add(report)
            self._matrix.write(Path(os.environ[VARIABLE]))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("vm")
            item.add_marker(pytest.mark.timeout(TEST_SECONDS))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Build the images before any worker starts: what workers print is not seen."""
    config = session.config
    if config.getoption("numprocesses", None) and not config.option.collectonly and not _is_worker(config):
        _build_images(config)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the images before the first test, where people see it: it takes longer than a test's time limit."""
    if not session.config.option.collectonly and any(item.get_closest_marker("vm") for item in session.items):
        _build_images(session.config)


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _build_images(config: pytest.Config) -> None:
    capture = config.pluginmanager.getplugin("capturemanager")
    try:
        with capture.global_and_fixture_disabled():
            build_loader()
            for version in ("1", "2"):
                build_image(Variant(version))
    except TestOsError as error:
        raise pytest.UsageError(str(error)) from None


@pytest.fixture
def scene(record_property: Callable[[str, object], None]) -> Scene:
    """What a test tells the table of faults."""
    return Scene(record_property)


@pytest.fixture(scope="session")
def loader() -> Loader:
    """The machines' boot loader."""
    return build_loader()


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    """A folder for disks and sockets, and one for the consoles' logs, which stays."""
    made = Workspace()
    yield made
    made.remove()


@pytest.fixture
def make_machine(loader: Loader, workspace: Workspace) -> Iterator[MakeMachine]:
    """Makes machines with version 1 in slot A, and what a test wants in slot B; all are cut off at its end."""
    with contextlib.ExitStack() as undo:

        def make(name: str = "vm", *, passive: OsImage | None = None, **options: object) -> Machine:
            disk = workspace.path / f"{name}.img"
            make_disk(disk, image("1"), Identity(uuid.uuid4().hex))
            if passive is not None:
                install(disk, SlotName.B, passive)
            machine = Machine(
                name,
                disk,
                loader,
                folder=workspace.path,
                logs=workspace.logs,
                options=MachineOptions(**options),  # type: ignore[arg-type]
            )
            undo.callback(machine.cut_power)
            return machine

        yield make


@pytest.fixture
def site() -> Iterator[Site]:
    """A cluster without machines yet. Releases 1 and 2 are good; tests call a broken one 3."""
    with Site() as made:
        made.publish(image("1"))
        made.publish(image("2"), "stable")
        yield made


def start(site: Site, first: OsImage | None = None, options: MachineOptions | None = None, **settings: str) -> Machine:
    """Switch a machine on, with version 1 in slot A, and wait for its agent. settings: of the agent's environment."""
    machine = site.add_machine(NAME, first or image("1"), options, settings=settings)
    machine.start()
    wait_up(machine, "1", SlotName.A, "firmware")
    site.wait_reported(NAME, COMMIT_SECONDS)
    return machine


def image(version: str, fault: Fault | None = None) -> OsImage:
    """An image, built when the cache lacks it."""
    return build_image(Variant(version, fault))


def wait_up(machine: Machine, version: str, slot: SlotName, boot: str, seconds: float = BOOT_SECONDS) -> None:
    """Wait until a system is up, and compare which one it is. boot: firmware or kexec."""
    line = machine.console.wait_for(r"OS up", seconds).text
    found = dict(word.split("=", 1) for word in line.split() if "=" in word)
    wanted = {"version": version, "slot": str(slot), "boot": boot}
    assert {key: found.get(key) for key in wanted} == wanted, machine.console.tail()


def expect_return(site: Site, seconds: float) -> dict[str, Any]:
    """Wait until the machine has given 3 up; it then runs 1, and any reset boots it."""
    status = site.wait_phase(NAME, ENDED, "3", seconds)
    assert (status["step"]["phase"], status["booted"]) == ("RolledBack", "A"), status
    slots = read_slots(site[NAME].disk)
    assert str(slots.a.attributes) == "P1 T0 S1"
    assert not slots.b.attributes.bootable
    return status
