"""What a shell is told when somebody presses TAB behind `careen unit`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from careen.cli.completion import complete_plugin
from careen.cli.main import run
from unit_api import NODES, UNITS, UnitApi, make_node

Complete = Callable[[str], list[str]]
WEB = "[Service]\nExecStart=/bin/web\n"


@pytest.fixture(autouse=True)
def _cluster(api: UnitApi) -> None:
    api.put(NODES, make_node("m1"))
    api.put(NODES, make_node("web-machine"))
    for name in ("web@1.service", "web@2.service", "db.service"):
        api.put(UNITS, {"metadata": {"name": name.replace("@", "-")}, "spec": {"name": name, "content": WEB}})


@pytest.fixture
def complete(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Complete:
    """What bash offers for the last word of a line."""

    def ask(line: str) -> list[str]:
        words = line.split(" ")
        monkeypatch.setenv("_CAREEN_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        assert run("careen", []) == 0
        return capsys.readouterr().out.split()

    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    return ask


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("careen unit start we", ["web@1.service", "web@2.service"]),
        ("careen unit start web@1.service we", ["web@2.service"]),
        ("careen unit journal d", ["db.service"]),
        ("careen unit status --machine ", ["m1", "web-machine"]),
        ("careen unit ssh we", ["web-machine", "web@1.service", "web@2.service"]),
        ("careen unit list-machines m", ["m1"]),
        ("careen unit destr", ["destroy"]),
        ("careen unit start ./no", []),
    ],
)
def test_names_of_the_cluster_are_offered(complete: Complete, line: str, offered: list[str]) -> None:
    assert complete(line) == offered


def test_a_cluster_is_named_on_the_line(complete: Complete, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    assert complete("careen unit cat d") == []
    assert complete(f"careen --kubeconfig {kubeconfig} unit cat d") == ["db.service"]
    assert complete(f"careen unit cat --kubeconfig {kubeconfig} d") == ["db.service"]


def test_kubectl_gets_a_word_a_line_and_is_told_to_offer_files_else(
    kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    assert complete_plugin(["unit", "start", "we"]) == ["web@1.service", "web@2.service", ":0"]
    assert complete_plugin(["unit", "start", "nothing"]) == [":0"]
    verbs = [line.split("\t")[0] for line in complete_plugin(["unit", "l"])]
    assert verbs == ["list-units", "list-unit-files", "list-machines", "load", ":0"]


def test_the_plugin_does_not_install_completion_for_a_program_of_two_words(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("/usr/bin/kubectl-careen", ["--install-completion"]) == 2
    assert "kubectl_complete-careen" in capsys.readouterr().err
