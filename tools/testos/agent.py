"""The agent as an image carries it: its one file, unpacked beforehand, and its units."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import careen

from .cache import digest_inputs, keep
from .debian import TestOsError

TOP = Path(__file__).parents[2]
ARTIFACT = TOP / "tools/artifact"
_BUILD_SECONDS = 600.0
_NOT_IN_IT = ("control", "core", "gateway", "sandbox", "sim")


def build_agent() -> Path:
    """A folder of the cache with `usr/`, what an image gets for the agent. Raises TestOsError if that fails."""
    package = Path(careen.__file__).parent
    rooms = [path for path in sorted(package.iterdir()) if path.name not in (*_NOT_IN_IT, "__pycache__")]
    key = digest_inputs(ARTIFACT, TOP / "requirements.lock", Path(__file__), *rooms)
    return keep("agent", key, _build)


def _build(folder: Path) -> None:
    place = folder / "usr/lib/careen"
    place.mkdir(parents=True)
    program = place / "careen-agent.pyz"
    environment = os.environ | {"CAREEN_AGENT_EXTRACT": str(place / "agent")}
    _run([sys.executable, str(ARTIFACT), "--output", str(program)], environment)
    # Its first start unpacks it, into the folder that its unit names; the second command is any that ends.
    _run([sys.executable, str(program), "agent-units", str(folder)], environment)
    found = list((place / "agent").iterdir())
    if len(found) != 1:
        raise TestOsError(f"the agent was to unpack itself once below {place}/agent; there are {len(found)} folders")


def _run(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False, cwd=TOP
    )
    if done.returncode:
        raise TestOsError(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-2000:]}")
