"""The command line without a cluster: usage, errors in one sentence, and verbs on a session that is a script."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from careen import __version__
from careen.cli.lock import free_lock, take_lock
from careen.cli.main import run
from careen.cli.node import retry_node
from careen.cli.operator import parse_selector
from careen.cli.tables import align, tell_age
from careen.cli.target import CommandError
from careen.core.snapshot import Requirement
from careen.kube.clock import ServerClock
from careen.kube.errors import Conflict
from careen.kube.session import Answer

SOURCE = Path(__file__).parents[2] / "operator"


class Server:
    """One object behind a session; the first `rivals` writes come too late."""

    def __init__(self, document: dict[str, Any], rivals: int = 0) -> None:
        self.document = document
        self.rivals = rivals
        self.clock = ServerClock()
        self.writes: list[tuple[str, Any]] = []

    async def request(self, method: str, path: str, *, body: Any = None, **_: Any) -> Answer:
        if path.endswith("selfsubjectreviews"):
            return Answer(201, {"status": {"userInfo": {"username": "anna"}}}, None)
        if method == "PATCH":
            if self.rivals:
                self.rivals -= 1
                self.document["metadata"]["resourceVersion"] += "1"
                raise Conflict(409, "Conflict", "somebody was faster")
            assert body["metadata"]["resourceVersion"] == self.document["metadata"]["resourceVersion"]
            self.writes.append((path, body))
            for part in ("spec", "status"):
                self.document.setdefault(part, {}).update(body.get(part, {}))
        return Answer(200, self.document, None)


def make_lock(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "default", "uid": "u", "resourceVersion": "7"}, "spec": {"max": 1}, "status": status}


def holders(server: Server) -> list[Mapping[str, Any]]:
    return list(server.document["status"]["holders"])


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("careen", ["--version"]) == 0
    assert capsys.readouterr().out == f"careen {__version__}\n"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, careen.cli.main; "
        "print([name for name in ('kopf', 'kubernetes', 'aiohttp', 'pydantic', 'tenacity') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["pause"],
        ["status", "--watch", "--json"],
        ["lock", "set-max", "-1"],
        ["operator", "--log-level", "LOUD"],
        ["sandbox", "up", "--machines", "0"],
        ["sandbox", "publish", "1.0", "--fault", "rust"],
    ],
)
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("careen", arguments) == 2
    assert capsys.readouterr().out == ""


def test_the_plugin_speaks_under_its_own_name(capsys: pytest.CaptureFixture[str]) -> None:
    run("/usr/bin/kubectl-careen", ["pause"])
    assert "kubectl careen pause" in capsys.readouterr().err


def test_no_kubeconfig_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run("careen", ["status"]) == 1
    assert capsys.readouterr().err.startswith(f"careen: no kubeconfig at {tmp_path}/.kube/config")


def test_no_server_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{name: a, context: {cluster: a}}]\n"
        "clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}]\nusers: []\n"
    )
    assert run("careen", ["--kubeconfig", str(kubeconfig), "pause", "os"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("careen: no answer from the API server: ")
    assert error.count("\n") == 1


async def test_lock_tries_again_until_its_write_is_not_too_late() -> None:
    server = Server(make_lock(), rivals=3)
    assert await take_lock(server, "default", "m1", "disks") == "m1 holds RebootLock default"  # type: ignore[arg-type]
    assert [(held["id"], held["by"], held["reason"]) for held in holders(server)] == [("m1", "anna", "disks")]
    assert server.document["status"]["available"] == 0


async def test_a_full_lock_is_not_tried_again() -> None:
    server = Server(make_lock(holders=[{"id": "m1", "since": "2026-01-01T00:00:00Z"}]), rivals=1)
    with pytest.raises(CommandError, match="max 1, 1 held: m1"):
        await take_lock(server, "default", "m2")  # type: ignore[arg-type]
    assert server.writes == []


async def test_unlock_keeps_what_else_is_stored() -> None:
    kept = {
        "id": "m2",
        "since": "2026-01-01T00:00:00.000000Z",
        "order": "o",
        "nodeUID": "n",
        "unavailableAtGrant": True,
    }
    server = Server(make_lock(term=4, holders=[{"id": "m1", "since": "2026-01-01T00:00:00Z"}, kept]))
    await free_lock(server, "default", "m1")  # type: ignore[arg-type]
    assert holders(server) == [kept]
    assert server.document["status"]["term"] == 4


async def test_retry_counts_from_what_is_there_when_it_is_written() -> None:
    node = {"metadata": {"name": "m1", "uid": "u", "resourceVersion": "7"}, "spec": {"retry": 4}}
    server = Server(node, rivals=1)
    assert await retry_node(server, "m1") == "retry of node m1 is 5"  # type: ignore[arg-type]


def test_selector_of_the_operator() -> None:
    assert parse_selector("a=b, c=") == (Requirement("a", "In", ("b",)), Requirement("c", "In", ("",)))
    assert parse_selector("") == ()


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(-5, "0s"), (0, "0s"), (119, "119s"), (330, "5m30s"), (3600, "60m"), (7200, "2h"), (200_000, "2d")],
)
def test_ages_are_told_like_kubectl_does(seconds: int, told: str) -> None:
    assert tell_age(1000.0, 1000.0 + seconds) == told


def test_columns_are_aligned() -> None:
    assert align([("ID", "WHY"), ("machine-1", "")]) == ["ID          WHY", "machine-1"]
