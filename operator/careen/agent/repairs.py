"""What was put right in the partition table: a small file on the state partition, for the Node and its successors."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from careen.release.durable import PRIVATE, write_durably

from .record import TableRepair

logger = logging.getLogger(__name__)


class RepairLog:
    """The last repair. path: its file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: TableRepair | None = None
        self._loaded = False

    @property
    def last(self) -> TableRepair | None:
        """The last repair that is known; read once. Raises OSError."""
        if not self._loaded:
            self._last = _load(self._path)
            self._loaded = True
        return self._last

    def note(self, faults: Sequence[str]) -> None:
        """Say and remember that these faults were put right; nothing if there were none."""
        if not faults:
            return
        logger.warning("the partition table was repaired: %s", "; ".join(faults))
        self._last = TableRepair(datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), tuple(faults))
        self._loaded = True
        try:
            write_durably(self._path, json.dumps(asdict(self._last)).encode(), mode=PRIVATE)
        except OSError as error:
            # The table is good all the same: whoever changed it goes on.
            logger.warning("the next agent will not know of the repair: %s", error)


def _load(path: Path) -> TableRepair | None:
    try:
        document = json.loads(path.read_bytes())
        return TableRepair(str(document["at"]), tuple(map(str, document["faults"])))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        logger.warning("%s can't be read and is dropped: %s", path, error)
        return None
