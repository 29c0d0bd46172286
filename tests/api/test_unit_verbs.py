"""The verbs of `careen unit` on a real API server: what they write is taken, and found again by every kind of name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from careen.cli.main import run
from careen.sandbox.client import Api
from careen.sandbox.cluster import Cluster

UNITS = "/apis/careen.dev/v1alpha1/units"
WEB = "[Service]\nExecStart=/bin/web\n"
NAMES = ("plain.service", "web@1.service", "dev-a\\x2db.service", "Capital.socket")
Careen = Callable[..., tuple[int, str, str]]


@pytest.fixture
def careen(plane: Cluster, _accounts: None, capsys: pytest.CaptureFixture[str]) -> Careen:
    def call(*words: str) -> tuple[int, str, str]:
        code = run("careen", ["--kubeconfig", str(plane.kubeconfig), "unit", *words])
        output = capsys.readouterr()
        return code, output.out, output.err

    return call


def test_units_of_every_kind_of_name_live_and_end(careen: Careen, admin: Api, tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / name).write_text(WEB)
    code, out, err = careen("submit", str(tmp_path))
    assert (code, err) == (0, "")
    assert out.splitlines() == [f"Unit {name} inactive" for name in sorted(NAMES)]
    for name in NAMES:
        assert careen("cat", name) == (0, WEB, "")
        assert careen("start", "--no-block", name)[:2] == (0, f"Triggered unit {name} start\n")
    files = json.loads(careen("list-unit-files", "--json")[1])
    assert {each["unit"]: each["dstate"] for each in files} == dict.fromkeys(NAMES, "launched")
    assert careen("stop", "--no-block", *NAMES)[0] == 0
    assert {unit["spec"]["desiredState"] for unit in admin.get(UNITS)["items"]} == {"loaded"}
    assert careen("unload", "--no-block", "web@*")[:2] == (0, "Triggered unit web@1.service unload\n")
    assert careen("destroy", *NAMES)[0] == 0
    assert admin.get(UNITS)["items"] == []


def test_a_wait_ends_at_its_deadline_with_what_is_known(careen: Careen, admin: Api, tmp_path: Path) -> None:
    path = tmp_path / "web@1.service"
    path.write_text(WEB)
    code, out, err = careen("start", "--timeout", "2", str(path))
    assert (code, out) == (1, "")
    assert "Unit web@1.service is not launched after 2 s: the operator has not seen it yet" in err


def test_a_unit_is_found_whatever_its_object_is_called(careen: Careen, admin: Api) -> None:
    template = {"apiVersion": "careen.dev/v1alpha1", "kind": "Unit", "metadata": {"name": "t"}}
    admin.create(UNITS, {**template, "spec": {"name": "t@.service", "content": WEB}})
    code, _, err = careen("start", "--no-block", "t@")
    assert code == 1
    assert 'cannot activate template "t@.service"' in err
