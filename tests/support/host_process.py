"""A machine folder whose /usr is read-only and whose state folder fills up: `unshare -m python host_process.py JOB`.

It stages with ever more room left in the state folder, then with enough, and tells as JSON what came of each try.
"""

from __future__ import annotations

import asyncio
import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from careen.agent.actions import StageImage
from careen.agent.imagehost import ImageHost, MachineFolder
from careen.agent.staging.fault import StageError
from careen.agent.staging.transfer import Deadlines
from careen.disk.table import read_slots
from careen.disk.types import DiskError, SlotName

PAGE = 4096
FILLER = "filler"


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def prepare(machine: MachineFolder, size: int) -> bool:
    """Make /usr read-only and put the state folder on a file system of its own; whether /usr really is."""
    mount("--bind", "/usr", "/usr")
    mount("-o", "remount,bind,ro", "/usr")
    saved = machine.path / "saved"
    shutil.copytree(machine.state, saved)
    mount("-t", "tmpfs", "-o", f"size={size}", "careen", str(machine.state))
    shutil.copytree(saved, machine.state, dirs_exist_ok=True)
    try:
        Path("/usr/.careen").touch()
    except OSError as error:
        return error.errno == errno.EROFS
    return False


def fill(folder: Path, spare: int) -> None:
    """Leave room for so many pages."""
    filler = folder / FILLER
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(PAGE))
        except OSError:
            file.truncate(max(file.tell() // PAGE - spare, 0) * PAGE)


async def attempt(machine: MachineFolder, trust_root: Path, image: StageImage) -> str:
    """One try as the agent makes it: the class of the error that the status would show; empty if there is none."""
    deadlines = Deadlines(connect=2.0, read=5.0, piece=5.0, pause=0.01)
    try:
        async with ImageHost(machine.path, trust_root, deadlines=deadlines) as host:
            await host.admit(image)
            await host.invalidate(image.slot)
            await host.stage(image, lambda _: None)
    except StageError as error:
        return error.fault.class_
    except (DiskError, OSError):
        return "Disk"
    return ""


def main() -> None:
    """Do the job."""
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_bytes())
    machine, trust_root = MachineFolder(Path(job["folder"])), Path(job["trust_root"])
    image = StageImage("order-1", SlotName.B, **job["image"])
    read_only = prepare(machine, job["size"])
    tries = []
    for spare in job["spare"]:
        fill(machine.state, spare)
        class_ = asyncio.run(attempt(machine, trust_root, image))
        (machine.state / FILLER).unlink()
        left = [path.name for path in machine.state.rglob("*") if path.name.endswith(".new") or path.match("tmp*")]
        slots = read_slots(machine.disk)
        tries.append({"class": class_, "left": left, "a": str(slots.a.attributes), "b": str(slots.b.attributes)})
    last = asyncio.run(attempt(machine, trust_root, image))
    used = sum(path.stat().st_size for path in machine.state.rglob("*") if path.is_file())
    print(json.dumps({"read_only": read_only, "tries": tries, "last": last, "used": used}))


if __name__ == "__main__":
    main()
