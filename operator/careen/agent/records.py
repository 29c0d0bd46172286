"""Which image was verified in which slot: a small file on the state partition."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from careen.disk.types import SlotName
from careen.release.durable import PRIVATE, write_durably

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SlotRecord:
    """The image that was read back from a slot after the last write to it. size: bytes."""

    digest: str
    size: int
    version: str


def load_records(path: Path) -> dict[SlotName, SlotRecord]:
    """The records in a file; an unreadable one counts as empty, since a slot can be hashed again. Raises OSError."""
    try:
        document = json.loads(path.read_bytes())
        return {SlotName(name): SlotRecord(**entry) for name, entry in document.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError) as error:
        logger.warning("the slots' records %s can't be read and are dropped: %s", path, error)
        return {}


def save_records(path: Path, records: Mapping[SlotName, SlotRecord]) -> None:
    """Replace the file, durably. Raises OSError."""
    document = {name.value: asdict(entry) for name, entry in records.items()}
    write_durably(path, json.dumps(document, indent=1).encode() + b"\n", mode=PRIVATE)
