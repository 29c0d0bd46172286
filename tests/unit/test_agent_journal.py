"""The journal as a file: it comes back as it was, in whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from careen.agent.journal import JournalInvalidError, decode_journal, encode_journal, load_journal, save_journal
from careen.agent.record import Ended, Fault, Journal, OpenOrder, Rejection, Stage
from careen.disk.types import SlotName
from careen.release.durable import write_durably

FULL = Journal(
    "m-id",
    born="boot-0",
    boots=("boot-0", "boot-1"),
    open=OpenOrder(
        order="order-1",
        digest="sha256:" + "b" * 64,
        version="2.0.0",
        from_slot=SlotName.A,
        to_slot=SlotName.B,
        from_boot_id="boot-1",
        method="Kexec",
        lost_attempts=1,
        commit_timeout_seconds=300,
        on_silence="Rollback",
        stage=Stage.UNDOING,
        verdict="ROLLBACK",
        cause="LocalGate",
        deadman="HardwareWatchdog",
        undo=Ended("order-1", "Failed", "Activate", fault=Fault("Boot", "refused")),
    ),
    ended=(Ended("order-0", "RolledBack", "Abort", "ROLLBACK", "People"),),
    rejected=(Rejection("sha256:" + "c" * 64, "Panic", 3),),
)


@pytest.mark.parametrize("journal", [FULL, Journal("m-id")])
def test_it_comes_back_as_it_was(journal: Journal, tmp_path: Path) -> None:
    save_journal(tmp_path / "journal.json", journal)
    assert load_journal(tmp_path / "journal.json") == journal


def test_fields_of_a_newer_agent_survive() -> None:
    document = json.loads(encode_journal(FULL))
    document["protocol"] = 7
    document["moon"] = {"phase": 1}
    document["open"]["tide"] = "high"
    again = json.loads(encode_journal(decode_journal(json.dumps(document).encode())))
    assert again == document


def test_none_is_there() -> None:
    assert load_journal(Path("/nonexistent/journal.json")) is None


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"7", b'{"protocol": 1}', encode_journal(FULL)[:100]])
def test_a_torn_journal_counts_as_lost_and_is_kept_aside(
    text: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "journal.json"
    path.write_bytes(text)
    assert load_journal(path) is None
    assert not path.exists()
    assert (tmp_path / "journal.json.corrupt").read_bytes() == text
    assert str(path) in caplog.text


@pytest.mark.parametrize(
    ("field", "value"), [("verdict", "MAYBE"), ("cause", "Bored"), ("stage", "Lost"), ("method", 1)]
)
def test_a_word_that_nobody_knows_is_named(field: str, value: object) -> None:
    document = json.loads(encode_journal(FULL))
    document["open"][field] = value
    with pytest.raises(JournalInvalidError, match=str(value)):
        decode_journal(json.dumps(document).encode())


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_durably(path, b"old")

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
