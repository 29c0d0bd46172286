"""Versions of the OS: the same tree, with another number, and with a fault where a test wants one."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from .tree import PRODUCT, UNITS, enable


class Fault(StrEnum):
    """What is wrong with a version."""

    PANIC = "panic"
    """The kernel panics early in the boot."""
    HANG = "hang"
    """Nothing but the kernel gets time any more, early in the boot."""
    INIT_EXITS = "init-exits"
    """systemd is replaced by a program that ends."""
    NO_AGENT = "no-agent"
    """The agent is never started."""
    AGENT_CRASHES = "agent-crashes"
    """The agent ends as soon as it is started."""
    UNHEALTHY = "unhealthy"
    """A unit fails, so that systemd calls the system degraded."""
    NO_POD_NETWORK = "no-pod-network"
    """A Kubernetes node without a network for its pods: its kubelet works, and says that the node is not ready."""


AGENT_UNIT = "careen-agent.service"
TRIAL_TIMER = "careen-trial.timer"
_UNHEALTHY = "[Unit]\nDescription=Fails\n[Service]\nType=oneshot\nExecStart=/bin/false\n"
_CRASHING = "[Service]\nExecStart=\nExecStart=/bin/false\n"
_SHORT_TRIAL = "[Timer]\nOnBootSec=\nOnBootSec=2min\n"
"""The timer that ends a trial without an agent, sooner than the ten minutes that real machines get for their boot."""


@dataclass(frozen=True)
class Variant:
    """One version."""

    version: str
    """Its number, as os-release has it."""
    fault: Fault | None = None
    """What is wrong with it."""

    @property
    def name(self) -> str:
        """What people call it, such as `2-panic`."""
        return self.version if self.fault is None else f"{self.version}-{self.fault}"


def apply(variant: Variant, usr: Path) -> None:
    """Make a copy of the tree this version. Files are replaced, never written in place: the copy may share them."""
    release = usr / "lib/os-release"
    text = re.sub(r"^(PRETTY_NAME|VERSION|VERSION_ID)=.*\n", "", release.read_text(), flags=re.MULTILINE)
    text += f'PRETTY_NAME="Careen test OS {variant.name}"\nVERSION_ID="{variant.version}"\n'
    replace(release, text + f'IMAGE_ID="{PRODUCT}"\nIMAGE_VERSION="{variant.version}"\n')
    match variant.fault:
        case Fault.PANIC | Fault.HANG:
            replace(usr / "lib/testos/fault.word", f"{variant.fault}\n")
        case Fault.INIT_EXITS:
            replace(
                usr / "lib/systemd/systemd", '#!/bin/sh\necho "OS fault: init exits" > /dev/console\nexit 1\n', 0o755
            )
        case Fault.NO_AGENT:
            for link in (usr / UNITS).glob(f"*.wants/{AGENT_UNIT}"):
                link.unlink()
            _change(usr, TRIAL_TIMER, _SHORT_TRIAL)
        case Fault.AGENT_CRASHES:
            _change(usr, AGENT_UNIT, _CRASHING)
            _change(usr, TRIAL_TIMER, _SHORT_TRIAL)
        case Fault.UNHEALTHY:
            replace(usr / UNITS / "testos-unhealthy.service", _UNHEALTHY)
            enable(usr, "testos-unhealthy.service", "multi-user.target")
        case Fault.NO_POD_NETWORK:
            for settings in (usr / "share/careen/etc/cni/net.d").iterdir():
                settings.unlink()


def _change(usr: Path, unit: str, text: str) -> None:
    """Change a unit by a drop-in, which comes after those of /etc in the order of names."""
    drop_in = usr / UNITS / f"{unit}.d/zz-fault.conf"
    drop_in.parent.mkdir(exist_ok=True)
    replace(drop_in, text)


def replace(path: Path, text: str, mode: int = 0o644) -> None:
    """Put a new file in the place of one that may have other links."""
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(mode)


def copy_tree(usr: Path, target: Path) -> None:
    """Copy a tree, over another one if there is one, by hard links to its files."""
    shutil.copytree(usr, target, symlinks=True, copy_function=_link, dirs_exist_ok=True)


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)
