"""Runbooks: each has the three parts, and tells only commands that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from careen.api.reasons import Reason
from careen.cli.main import app

PAGES = sorted((Path(__file__).parents[3] / "docs" / "runbooks").glob("*.md"))
COMMAND = re.compile(r"(?:^    |`)careen ([a-z-]+)(?: ([a-z-]+))?", re.MULTILINE)

CHOSEN = {Reason.WAVE_SOAKING, Reason.PAUSED, Reason.CLUSTER_PAUSED, Reason.LOCK_PAUSED, Reason.ROLLOUT_HALTED}
"""What people have chosen to wait for; CareenRolloutWaiting leaves it out."""
OF_UNITS = {
    Reason.VALID,
    Reason.INVALID,
    Reason.NAME_FREE,
    Reason.NAME_TAKEN,
    Reason.INACTIVE,
    Reason.PLACED,
    Reason.NO_PLACE,
    Reason.MOVING,
    Reason.STARTING,
    Reason.STOPPING,
    Reason.UNIT_FAILED,
}
"""What only units say."""
NO_WAIT = {
    Reason.STAGING,
    Reason.ACTIVATING,
    Reason.VERIFYING,
    Reason.DRAINING,
    Reason.GIVING_BACK,
    Reason.RETURNING,
    Reason.UP_TO_DATE,
    Reason.ROLLED_BACK,
    Reason.NO_POLICY,
    Reason.COMPLETE,
    Reason.ROLLING_OUT,
    Reason.NO_MACHINES,
    Reason.MACHINES_FAILED,
    Reason.FAILURE_BUDGET,
    Reason.AVAILABLE,
    Reason.RESOLVED,
    Reason.METADATA_EXPIRING,
    *OF_UNITS,
}


@pytest.mark.parametrize("reason", sorted(set(Reason) - NO_WAIT - CHOSEN))
def test_every_reason_to_wait_has_a_line_that_says_what_helps(reason: str) -> None:
    page = next(page for page in PAGES if page.stem == "CareenRolloutWaiting")
    table = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    told = {word for line in table for word in re.split(r"[|,]\s*", line.split(" | ")[0])}
    assert reason in {word.strip() for word in told}


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_runbook_says_what_it_means_what_to_look_at_and_what_to_do(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# {page.stem}\n")
    parts = [text.find(f"**{part}") for part in ("What it means.", "What to look at", "What to do")]
    assert -1 not in parts
    assert parts == sorted(parts)


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_runbook_tells_only_commands_that_exist(page: Path) -> None:
    verbs = getattr(typer.main.get_command(app), "commands")  # noqa: B009
    told = COMMAND.findall(page.read_text(encoding="utf-8"))
    assert told or "kubectl" in page.read_text(encoding="utf-8")
    for verb, word in told:
        assert verb in verbs, f"careen {verb}"
        known = getattr(verbs[verb], "commands", None)
        assert known is None or not word or word in known, f"careen {verb} {word}"


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
