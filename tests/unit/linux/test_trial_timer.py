"""The image's own timer: when its script resets the machine, and when it leaves it alone."""

from __future__ import annotations

import os
import subprocess
from importlib import resources
from pathlib import Path

import pytest

from careen.cli.agent import UNITS
from careen.cli.entry import run_app
from careen.cli.machine import app

UPTIME = 1000


@pytest.fixture
def check(tmp_path: Path) -> object:
    """Run the script on a machine in a folder: its paths are moved there, its programs are ours."""
    text = (resources.files("careen.agent.linux") / "units" / "trial-check").read_text()
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("systemctl", "kexec", "blkid", "sleep"):
        body = f'echo "{name} $*" >>{tmp_path}/ran\n'
        if name == "blkid":
            body = f"case $* in *{tmp_path}/dev/vda3) exec cat {tmp_path}/flags ;; esac\nexit 2\n"
        (programs / name).write_text(f"#!/bin/sh\n{body}")
        (programs / name).chmod(0o755)
    for place in ("/run/careen/", "/proc/cmdline", "/proc/uptime", "/dev/", "/sys/class/block/"):
        text = text.replace(place, f"{tmp_path}{place}")
    script = tmp_path / "trial-check"
    script.write_text(text)
    for folder in ("run/careen", "proc", "dev"):
        (tmp_path / folder).mkdir(parents=True)
    shown = tmp_path / "sys/class/block"
    for name in ("vda", "vda2", "vda3"):
        (shown / name).mkdir(parents=True)
    (shown / "vda/uevent").write_text("DEVNAME=vda\nDEVTYPE=disk\n")

    def run(
        line: str,
        *,
        flags: str | None = "0x2000000000000",
        name: str = "USR-B",
        committed: bool = False,
        alive: float | None = None,
    ) -> str:
        (tmp_path / "proc" / "cmdline").write_text(line + "\n")
        for partition, label in (("vda2", "USR-A"), ("vda3", name)):
            text = f"DEVNAME={partition}\nDEVTYPE=partition\nPARTNAME={label}\n"
            (shown / partition / "uevent").write_text(text)
        (tmp_path / "proc" / "uptime").write_text(f"{UPTIME}.37 1200.00\n")
        (tmp_path / "flags").unlink(missing_ok=True)
        if flags is not None:
            (tmp_path / "flags").write_text(flags + "\n")
        (tmp_path / "ran").write_text("")
        if committed:
            (tmp_path / "run/careen/committed").touch()
        if alive is not None:
            file = tmp_path / "run/careen/trial-alive"
            file.write_text(f"{int(UPTIME - alive)}\n")
            # The machine's clock was years behind, and has been set since.
            os.utime(file, (0, 0))
        environment = {"PATH": f"{programs}:{os.environ['PATH']}"}
        subprocess.run(["sh", script], check=True, env=environment, timeout=20, capture_output=True)
        ran = (tmp_path / "ran").read_text()
        if "systemctl reboot --force --force" in ran:
            return "reset"
        return "stopped" if "stop --no-block careen-trial.timer" in ran else "left alone"

    return run


KEXEC, LOADER = "quiet careen.slot=B careen.boot=kexec careen.order=o-1", "quiet careen.slot=B careen.boot=firmware"


@pytest.mark.parametrize(
    ("line", "given", "outcome"),
    [
        (KEXEC, {}, "reset"),
        (KEXEC, {"committed": True}, "stopped"),
        (KEXEC, {"alive": 5.0}, "left alone"),
        (KEXEC, {"alive": 500.0}, "reset"),
        (KEXEC, {"alive": 120.0}, "reset"),
        (LOADER, {}, "reset"),
        (LOADER, {"flags": "0x102000000000000"}, "stopped"),
        (LOADER, {"flags": "0x8102000000000000"}, "stopped"),
        (LOADER, {"flags": "0x8002000000000000"}, "reset"),
        (LOADER, {"alive": 5.0}, "left alone"),
        # What can't be told is a trial once its time is over.
        (LOADER, {"flags": None}, "reset"),
        (LOADER, {"flags": None, "alive": 5.0}, "left alone"),
        (LOADER, {"flags": None, "committed": True}, "stopped"),
        (LOADER, {"flags": "0x102000000000000", "name": "other"}, "reset"),
        ("quiet", {}, "stopped"),
    ],
)
def test_only_a_trial_that_nobody_decides_over_is_reset(check: object, line: str, given: dict, outcome: str) -> None:  # type: ignore[type-arg]
    assert check(line, **given) == outcome  # type: ignore[operator]


def test_the_units_are_written_where_an_image_has_them(tmp_path: Path) -> None:
    assert run_app(app, "careen", ["agent-units", str(tmp_path)]) == 0
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {
        *(f"usr/lib/systemd/system/{name}" for name in UNITS if "." in name), "usr/lib/careen/trial-check",
    }  # fmt: skip
    assert os.access(tmp_path / "usr/lib/careen/trial-check", os.X_OK)
