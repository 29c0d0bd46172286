"""An install in a namespace of another name: the same word reaches admission, operator, agent and `careen plan`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from careen.agent import app as agent_app
from careen.api import crd
from careen.cli.main import run
from careen.cli.plan import forecast_policy
from careen.control import app as operator_app
from careen.kube.clock import ServerClock


def test_admission_is_made_for_the_namespace_of_the_install(tmp_path: Path) -> None:
    assert run("careen", ["crds", "--namespace", "os-updates", str(tmp_path)]) == 0
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert "careen-system" not in "".join(written.values())
    usual = crd.render_files()
    assert written.keys() == usual.keys()
    back = written.pop("admission.yaml").replace("os-updates", "careen-system")
    assert back.split() == usual.pop("admission.yaml").split()
    assert written == usual


@pytest.mark.parametrize("name", ["a'b", "UPPER", "-a", "a" * 64])
def test_what_is_no_namespace_never_reaches_a_rule(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("careen", ["crds", f"--namespace={name}"]) == 2
    assert "allowed: a to z" in " ".join(capsys.readouterr().err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("environment", "namespace"),
    [
        ({}, "careen-system"),
        ({"CAREEN_NAMESPACE": "os-updates"}, "os-updates"),
        ({"POD_NAMESPACE": "x"}, "careen-system"),
    ],
)
def test_operator_and_agent_take_the_namespace_that_is_meant_for_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, environment: dict[str, str], namespace: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    seen: list[Any] = []
    monkeypatch.setattr(operator_app, "run_operator", lambda settings: seen.append(settings) or 0)
    monkeypatch.setattr(agent_app, "run_process", lambda options: seen.append(options.settings))
    assert run("careen", ["operator"]) == 0
    assert run("careen", ["agent", "--folder", str(tmp_path), "--node", "m0"]) == 0
    assert [settings.namespace for settings in seen] == [namespace, namespace]


class Cluster:
    """One policy whose rollout is known, and a switch in another namespace; it notes what is asked for."""

    def __init__(self) -> None:
        self.clock = ServerClock()
        self.asked: list[str] = []

    async def request(self, _method: str, path: str, **_: Any) -> Any:
        self.asked.append(path)
        if path.endswith("/configmaps/careen-switch"):
            return SimpleNamespace(body={"data": {"paused": "true"}})
        items = [POLICY] if path.endswith("/updatepolicies") else []
        return SimpleNamespace(body={"items": items, "metadata": {}})


DIGEST = "sha256:" + "a" * 64
POLICY = {
    "metadata": {"name": "os", "uid": "u", "resourceVersion": "1"},
    "spec": {"release": {"repository": "http://r", "version": "2.0.0"}},
    "status": {
        "rollout": {
            "id": "1-abc", "number": 1, "repository": "http://r", "version": "2.0.0", "digest": DIGEST, "sizeBytes": 1,
            "path": "p", "startedAt": "2026-01-01T00:00:00Z", "waveNames": ["all"], "waveBounds": ["f"],
        }
    },
}  # fmt: skip


async def test_the_plan_reads_leases_and_switch_where_they_are() -> None:
    cluster = Cluster()
    await forecast_policy(cluster, "os", "os-updates")  # type: ignore[arg-type]
    placed = [path for path in cluster.asked if "/namespaces/" in path]
    assert len(placed) == 2
    assert all("/namespaces/os-updates/" in path for path in placed)
