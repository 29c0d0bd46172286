"""The README's first command: the demo shows what it says, and says what it saw."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "operator"


@pytest.mark.slow
def test_demo_prints_its_figures_and_ends_with_0(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "careen", "sandbox", "demo", "--json", "--svg", str(tmp_path / "demo.svg")]
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    started = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert list(document) == ["ok", "good", "broken", "units", "idle"]
    assert document["ok"] is True
    good, broken, idle = document["good"], document["broken"], document["idle"]
    assert list(good) == ["machines", "updated", "seconds", "maxUnavailableSeen"]
    assert (good["machines"], good["updated"]) == (6, 6)
    assert 1 <= good["maxUnavailableSeen"] <= 2
    assert list(broken) == ["rolledBack", "untouched", "halted", "reason"]
    assert (broken["rolledBack"], broken["untouched"], broken["halted"]) == (1, 5, True)
    assert "Panic" in broken["reason"]
    units = document["units"]
    assert list(units) == ["runs", "moves", "interrupted"]
    assert (units["runs"], units["interrupted"]) == (1, 0)
    assert units["moves"] >= 1
    assert list(idle) == ["seconds", "writes", "lists"]
    assert (idle["writes"], idle["lists"]) == (0, 0)
    assert idle["seconds"] >= 5
    assert time.monotonic() - started < 120
    picture = (tmp_path / "demo.svg").read_text()
    assert "machine-6" in picture
    assert "https://" not in picture
