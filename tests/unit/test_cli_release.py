"""What the command line says of a channel and of trouble with its repository."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from careen.cli.fleet import Reading
from careen.cli.status import describe_status, draw_status
from careen.core.assemble import Objects
from careen.core.decode import decode_policy

DIGEST = "sha256:" + "a" * 64


def condition(kind: str, status: str, reason: str, message: str) -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": message, "observedGeneration": 1}


def reading(*conditions: dict[str, Any], found: bool = True, version: str | None = None) -> Reading:
    asks = {"version": version} if version is not None else {"channel": "stable"}
    rollout = {
        "id": "1-abc", "number": 1, "repository": "http://r", "version": "2.0.0", "digest": DIGEST, "sizeBytes": 1,
        "path": "releases/2.0.0.json", "startedAt": "2026-01-01T00:00:00Z", "waveNames": ["all"], "waveBounds": ["f"],
    }  # fmt: skip
    release = {
        "repository": "http://r", "channel": "stable", "version": "2.0.0", "digest": DIGEST,
        "resolvedAt": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    document = {
        "metadata": {"name": "os", "uid": "u", "resourceVersion": "1", "generation": 1},
        "spec": {"release": {"repository": "http://r", **asks}},
        "status": {"observedGeneration": 1, "conditions": list(conditions)},
    }
    if found:
        document["status"] |= {"rollout": rollout, "release": release}
    return Reading(Objects(policies={"os": decode_policy(document)}))


COMPLETE = condition("Complete", "True", "Complete", "all 3 machines run 2.0.0")


def show(known: Reading) -> str:
    console = Console(width=200, file=io.StringIO())
    with console.capture() as capture:
        console.print(draw_status(known))
    return capture.get()


def test_a_channel_is_shown_with_version_and_digest() -> None:
    assert "stable → 2.0.0 (sha256:aaaaaaaaaaaa)" in show(reading(COMPLETE))
    (policy,) = describe_status(reading(COMPLETE))["policies"]
    assert (policy["channel"], policy["version"], policy["resolved"]["digest"]) == ("stable", "2.0.0", DIGEST)


def test_a_channel_that_was_not_found_yet_and_a_version_are_shown_as_they_are() -> None:
    assert "stable →" not in show(reading(found=False))
    assert "stable" in show(reading(found=False))
    assert "→" not in show(reading(COMPLETE, version="2.0.0"))


@pytest.mark.parametrize("reason", ["TrustFailed", "ReleaseUnavailable", "MetadataExpiring"])
def test_trouble_with_the_repository_is_told_beside_a_complete_rollout(reason: str) -> None:
    trouble = condition("ReleaseResolved", "False", reason, "what is wrong")
    (policy,) = describe_status(reading(COMPLETE, trouble))["policies"]
    assert policy["state"] == "Complete"
    assert policy["message"] == f"all 3 machines run 2.0.0; {reason}: what is wrong"


def test_trouble_that_stops_the_rollout_is_told_once() -> None:
    waiting = condition("Waiting", "True", "TrustFailed", "bad signature")
    trouble = condition("ReleaseResolved", "False", "TrustFailed", "bad signature")
    (policy,) = describe_status(reading(waiting, trouble))["policies"]
    assert (policy["state"], policy["message"]) == ("TrustFailed", "bad signature")
