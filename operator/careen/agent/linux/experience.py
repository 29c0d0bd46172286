"""What the machine has learned about kexec: a boot by kexec that was lost without a word is held against it."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from careen.agent.record import Journal, OpenOrder, Stage
from careen.disk.types import SlotName
from careen.release.durable import PRIVATE, write_durably

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Experience:
    """suspect: digest whose last boot by kexec was lost. doubted: one that the firmware then booted well. blamed: the
    second such digest, with no kexec that worked in between.

    One loss may have been the power's: a cut between the request and the kexec looks the same.
    """

    suspect: str | None = None
    doubted: str | None = None
    blamed: str | None = None


def learn(known: Experience, journal: Journal | None, booted: SlotName, boot_id: str) -> Experience:
    """What is known after a look at this boot. Pure.

    Lost by kexec: the release is a suspect, and the firmware gets the next try. The firmware boots it well: kexec is
    doubted, and the next such release blames it. The firmware loses it too: the release was to blame, not kexec.
    """
    opened = journal.open if journal else None
    if journal is None or opened is None or opened.kind != "Update":
        return known
    if boot_id == opened.from_boot_id or opened.stage is not Stage.REQUESTED:
        return known
    if opened.method == "Kexec":
        if opened.verdict == "COMMIT" and booted is opened.to_slot:
            return Experience()
        lost = booted is opened.from_slot and not _was_seen(journal, opened, boot_id)
        return replace(known, suspect=opened.digest) if lost else known
    if known.suspect != opened.digest:
        return known
    if booted is opened.from_slot:
        return replace(known, suspect=None)
    if opened.verdict != "COMMIT":
        return known
    if known.doubted in (None, opened.digest):
        return Experience(doubted=opened.digest, blamed=known.blamed)
    return Experience(doubted=known.doubted, blamed=opened.digest)


def _was_seen(journal: Journal, opened: OpenOrder, boot_id: str) -> bool:
    """Whether an agent ran between the boot that asked for the reboot and this one: then kexec did its part."""
    boots = [boot for boot in journal.boots if boot != boot_id]
    return not boots or boots[-1] != opened.from_boot_id


def load_experience(path: Path) -> Experience:
    """What a file holds; nothing if it can't be read: kexec is tried again then. Raises OSError."""
    try:
        document = json.loads(path.read_bytes())
        return Experience(document.get("suspect"), document.get("doubted"), document.get("blamed"))
    except FileNotFoundError:
        return Experience()
    except (ValueError, AttributeError) as error:
        logger.warning("%s can't be read and is dropped: %s", path, error)
        return Experience()


def save_experience(path: Path, experience: Experience) -> None:
    """Replace the file, durably. Raises OSError."""
    write_durably(path, json.dumps(asdict(experience)).encode() + b"\n", mode=PRIVATE)
