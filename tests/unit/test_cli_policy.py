"""`careen resume`: what it promises."""

from __future__ import annotations

from typing import Any

import pytest

from careen.cli import fleet
from careen.cli.policy import resume_policy
from careen.cli.target import CommandError
from careen.kube import write


def halted(failures: int, *, paused: bool) -> dict[str, Any]:
    """A policy whose rollout is halted after that many failures."""
    failed = [{"node": f"m{n}", "nodeUID": f"u{n}", "order": f"o{n}", "cause": "Panic"} for n in range(failures)]
    rollout = {
        "id": "1-abc", "number": 1, "repository": "http://r", "version": "2.0.0", "digest": "sha256:" + "a" * 64,
        "sizeBytes": 1, "path": "p", "startedAt": "2026-01-01T00:00:00Z", "waveNames": ["all"], "waveBounds": ["f"],
        "failures": failed, "failed": failures, "haltedAt": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    return {
        "metadata": {"name": "os", "uid": "u", "resourceVersion": "1"},
        "spec": {"release": {"repository": "http://r", "version": "2.0.0"}, "paused": paused},
        "status": {"rollout": rollout},
    }


@pytest.fixture
def resume(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Resume a policy; what was told and what was written."""
    written: list[dict[str, Any]] = []

    async def patch_merge(_session: Any, _kind: Any, _name: str, body: dict[str, Any]) -> None:
        written.append(body)

    async def call(policy: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
        async def get(*_: Any) -> dict[str, Any]:
            return policy

        monkeypatch.setattr(fleet, "get", get)
        try:
            return await resume_policy(None, "os"), written  # type: ignore[arg-type]
        except CommandError as error:
            return f"error: {error}", written

    monkeypatch.setattr(write, "patch_merge", patch_merge)
    return call


async def test_failures_that_are_seen_are_forgiven(resume: Any) -> None:
    told, written = await resume(halted(999, paused=False))
    assert told.startswith("rollout 1-abc goes on after 999")
    assert written == [{"metadata": {"annotations": {"careen.dev/resume": "1-abc/999"}}}]


@pytest.mark.parametrize("paused", [False, True])
async def test_a_rollout_that_can_record_no_more_failures_is_not_said_to_go_on(resume: Any, paused: bool) -> None:
    told, written = await resume(halted(1000, paused=paused))
    assert told.startswith("error: ")
    assert "only another release goes on" in told
    assert ("no longer paused" in told) == paused
    assert written == ([{"spec": {"paused": False}}] if paused else [])
