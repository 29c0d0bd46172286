"""Writing to the passive slot when the disk does not take it."""

from __future__ import annotations

import pytest

from careen.agent.staging.fault import StageError
from careen.agent.staging.leaves import BLOCK_BYTES
from careen.agent.staging.writer import SlotWriter
from careen.disk.types import DiskIoError


class Lossy:
    """A slot whose cache shows what its disk has lost, as Linux's does after a failed flush, until it is dropped."""

    def __init__(self) -> None:
        self.disk = bytearray(BLOCK_BYTES)
        self.cache = bytearray(BLOCK_BYTES)

    def write(self, offset: int, data: bytes) -> None:
        self.cache[offset : offset + len(data)] = data

    def sync(self) -> None:
        raise DiskIoError("flushing the slot: Input/output error")

    def drop_cached(self) -> None:
        self.cache[:] = self.disk


def test_what_could_not_be_flushed_does_not_look_as_if_it_were_in_place() -> None:
    slot = Lossy()
    writer = SlotWriter(slot)  # type: ignore[arg-type]
    writer.put(0, b"x" * BLOCK_BYTES)
    with pytest.raises(StageError, match="Input/output error") as caught:
        writer.finish()
    assert caught.value.fault.class_ == "Disk"
    assert slot.cache == slot.disk
