"""The table of faults: which scenario ran, what the end may be, and what it was. Written only when it is asked for."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

VARIABLE = "CAREEN_FAULT_MATRIX"
"""Environment variable with the file that the table goes into; rows of scenarios that did not run stay in it."""
_HEAD = """# What machines do under faults

Made by `make test-vm-all`, or scenario by scenario with CAREEN_FAULT_MATRIX naming this file, on virtual machines under
software emulation: real kernels, kexec, systemd, partition tables and API server. A line stays until its scenario runs
again, so each names the commit and the time of its run.
The last run was of commit {commit} at {date}.

| Scenario | Legal end | Seen end | What the agent says | Seconds | Commit, time |
| --- | --- | --- | --- | ---: | --- |
"""
_CAUSE = re.compile(r"'cause': '(\w+)'")
_PHASE = re.compile(r"'phase': '(\w+)'")
_STEP = re.compile(r"careen\.agent\S* \S+: (\w+)")
_OLD, _NEW = "the old system", "the new system"
_ENDS = {
    "a_broken_system_in_b_ends_in_a": _OLD,
    "a_flipped_bit_in_b_panics_and_ends_in_a": _OLD,
    "a_disk_without_a_table_never_ends_in_a_prompt": "the loader, again and again",
    "a_hardware_watchdog_that_survives_the_kexec_ends_a_hang": _OLD,
    "a_software_watchdog_ends_a_hang": _OLD,
    "an_empty_slot_is_passed_over": _OLD,
    "an_unhealthy_system_is_left": f"{_OLD}, cause LocalGate",
    "comes_back_from_a_broken_system_and_halts_the_rollout": f"{_OLD}, cause Panic",
    "goes_on_after_power_cuts": f"{_OLD}, then {_NEW}",
    "lockdown_is_seen_before_the_drain": f"{_NEW}, by the firmware",
    "the_loader_takes_one_try_and_goes_back_after_a_power_cut": _OLD,
    "the_trial_timer_ends_a_system_without_an_agent": _OLD,
}
"""The ends of tests that tell the table nothing themselves, but assert it. The others end in the new system."""


class Scene:
    """What a test tells the table about itself."""

    def __init__(self, record: Callable[[str, object], None]) -> None:
        self._record = record

    def expect(self, name: str, legal: str) -> None:
        """Name the scenario, and its legal end."""
        self._record("scenario", name)
        self._record("legal", legal)

    def note(self, seen: str, said: str) -> None:
        """Tell the end, and the agent's words on it: a line of its log, a cause, or a sentence."""
        found = [match[1] for pattern in (_PHASE, _CAUSE) if (match := pattern.search(said))]
        self._record("seen", seen)
        step = _STEP.search(said)
        self._record("said", ", cause ".join(found) or (f"goes on with {step[1]}" if step else said))


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    scenario: str
    cells: tuple[str, ...]

    def __str__(self) -> str:
        return "| " + " | ".join((self.scenario, *self.cells)) + " |"


class Matrix:
    """The rows of one run."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        commit = _git("rev-parse", "--short=12", "HEAD")
        # The page that it writes is no change of what it tells of.
        others = (":/", ":(top,exclude)docs/fault-matrix.md")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", *others)
        self._commit = f"{commit}, changed" if changed else commit
        self._date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")

    def add(self, report: pytest.TestReport) -> None:
        """Take the report of a test that ran; one that was skipped has no row."""
        if report.skipped or (report.when != "call" and report.passed):
            return
        told = {name: str(value) for name, value in report.user_properties}
        test = report.nodeid.split("::", 1)[-1].removeprefix("test_")
        name = told.get("scenario", test.replace("_", " "))
        legal = told.get("legal", _ENDS.get(test.split("[", 1)[0], _NEW))
        seen = told.get("seen", legal) if report.passed else "**failed**"
        cells = (legal, seen, told.get("said", ""))
        spent = f"{report.duration:.0f}"
        clean = tuple(cell.replace("|", "\\|").replace("\n", " ") for cell in cells)
        self._rows[name] = Row(name, (*clean, spent, f"{self._commit}, {self._date}"))

    def write(self, path: Path) -> None:
        """Put the rows into a file; its rows of other scenarios stay."""
        rows = {row.scenario: row for row in _read(path)} | self._rows
        if self._rows:
            head = _HEAD.format(commit=self._commit, date=self._date)
            path.write_text(head + "".join(f"{row}\n" for row in rows.values()))


def _read(path: Path) -> list[Row]:
    lines = path.read_text().splitlines() if path.exists() else []
    table = [line[2:-2].split(" | ") for line in lines if line.startswith("| ")]
    return [Row(first, tuple(rest)) for first, *rest in table[2:]]


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    return done.stdout.strip()
