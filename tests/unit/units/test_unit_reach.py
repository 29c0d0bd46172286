"""`careen unit status`, `journal` and `ssh`, and the ways that they take to a machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from careen.cli.units.commands import (
    JournalOptions,
    SshOptions,
    ask_kubelet,
    call_ssh,
    enter_machine,
    find_host_root,
    read_kubelet,
    restart_unit,
    show_unit,
)
from unit_api import CORE_NODES, NODES, PODS, UNITS, UnitApi, make_node

Careen = Callable[..., tuple[int, str, str]]
WEB = "[Unit]\nDescription=Web\n[Service]\nExecStart=/bin/web\n"
RUNNING = {"load": "loaded", "active": "active", "sub": "running", "hash": "a" * 40}


@pytest.fixture(autouse=True)
def _cluster(api: UnitApi) -> None:
    for name, address in (("m1", "10.0.0.1"), ("m2", "10.0.0.2")):
        api.put(NODES, make_node(name, units=[{"name": "log.service", **RUNNING}]))
        addresses = [{"type": "InternalIP", "address": address}]
        api.put(CORE_NODES, {"metadata": {"name": name}, "status": {"addresses": addresses}})
    api.put(UNITS, {
        "metadata": {"name": "web"}, "spec": {"name": "web@1.service", "content": WEB, "desiredState": "launched"},
        "status": {
            "currentState": "launched", "placements": [{"node": "m1"}], "machines": [{"node": "m1", **RUNNING}],
        },
    })  # fmt: skip
    api.put(UNITS, {"metadata": {"name": "log.service"}, "spec": {"content": f"{WEB}[X-Fleet]\nGlobal=1\n"}})
    api.put(UNITS, {"metadata": {"name": "idle.service"}, "spec": {"content": WEB}})


def add_agent(api: UnitApi, machine: str = "m1", *args: str) -> None:
    container = {"name": "agent", "args": list(args or ("agent", "--host=linux", "--host-root=/host"))}
    api.put(PODS, {
        "metadata": {"name": f"agent-{machine}"}, "spec": {"nodeName": machine, "containers": [container]},
        "status": {"phase": "Running"},
    })  # fmt: skip


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Path]:
    """Have an ssh that writes down how it is called, and ends with a code."""

    def install(code: int) -> Path:
        programs, calls = tmp_path / "bin", tmp_path / "calls"
        programs.mkdir(exist_ok=True)
        (programs / "ssh").write_text(f'#!/bin/sh\nprintf "%s|" "$@" >> {calls}\nexit {code}\n')
        (programs / "ssh").chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        return calls

    return install


def test_a_journal_comes_through_the_agents_pod(api: UnitApi, careen: Careen) -> None:
    add_agent(api)
    api.exec_output = [(1, b"line 1\n"), (2, b"a warning\n"), (1, b"line 2\n")]
    assert careen("journal", "web@1", "-n", "2") == (0, "line 1\nline 2\n", "a warning\n")
    assert api.execs == [
        ["chroot", "/host", "journalctl", "--unit", "web@1.service", "--no-pager", "-n", "2", "--output", "short"]
    ]


def test_a_journal_that_is_followed_ends_with_the_connection(api: UnitApi, careen: Careen) -> None:
    add_agent(api)
    assert careen("journal", "web@1", "-f")[:2] == (0, "from the pod\n")
    assert api.execs[0][:2] == ["python3", "-c"]
    assert api.execs[0][3:6] == ["chroot", "/host", "journalctl"]
    assert api.execs[0][-1] == "--follow"
    query = next(query for path, query in api.asked if path.endswith("/exec"))
    assert query["stdin"] == "true"


def test_without_an_agents_pod_the_kubelet_is_asked(api: UnitApi, careen: Careen) -> None:
    api.kubelet = ("text/plain", "from the kubelet\n")
    assert careen("journal", "web@1") == (0, "from the kubelet\n", "")
    assert ("/api/v1/nodes/m1/proxy/logs/", {"query": "web@1", "tailLines": "10"}) in api.asked


def test_then_ssh(api: UnitApi, careen: Careen, ssh: Callable[[int], Path]) -> None:
    api.kubelet = ("text/html", "<pre>pods/</pre>")
    calls = ssh(7)
    assert careen("journal", "--sudo", "--ssh-username", "core", "--ssh-port", "2222", "web@1")[0] == 7
    assert calls.read_text() == (
        "-o|ConnectTimeout=10|-p|2222|-l|core|--|10.0.0.1|"
        "sudo journalctl --unit web@1.service --no-pager -n 10 --output short|"
    )


def test_no_way_is_one_sentence_with_all_reasons(api: UnitApi, careen: Careen, ssh: Callable[[int], Path]) -> None:
    ssh(255)
    api.forbidden |= {PODS, "/api/v1/nodes/m1/proxy"}
    code, out, err = careen("journal", "web@1")
    assert (code, out) == (1, "")
    assert err == (
        "careen: there is no way to machine m1 (exec: you may not list pods in namespace careen-system; "
        "kubelet: you may not read its logs (get nodes/proxy); ssh: ssh to 10.0.0.1 failed)\n"
    )


def test_a_way_can_be_chosen(api: UnitApi, careen: Careen, ssh: Callable[[int], Path]) -> None:
    add_agent(api)
    calls = ssh(0)
    assert careen("journal", "--via", "ssh", "web@1")[0] == 0
    assert api.execs == []
    assert calls.exists()
    assert "(kubelet: the server could not find" in careen("journal", "--via", "kubelet", "web@1")[2]


def test_the_agent_of_a_simulated_machine_is_no_way(api: UnitApi, careen: Careen) -> None:
    add_agent(api, "m1", "agent", "--host=image")
    assert "its agent has a simulated machine" in careen("journal", "--via", "exec", "web@1")[2]
    assert api.execs == []


def test_what_may_have_run_is_not_run_again_by_another_way(
    api: UnitApi, careen: Careen, ssh: Callable[[int], Path]
) -> None:
    add_agent(api)
    api.exec_output, api.exec_code = [], -1
    calls = ssh(0)
    code, _, err = careen("journal", "web@1")
    assert code == 1
    assert "the connection was lost before the program's end" in err
    assert not calls.exists()


def test_status_tells_what_the_cluster_knows_and_has_systemctls_exit_code(api: UnitApi, careen: Careen) -> None:
    add_agent(api)
    api.exec_code = 3
    code, out, _ = careen("status", "web@1")
    assert code == 3
    assert out.startswith("web@1.service - Web\n   Object: web\n")
    assert " Reported: loaded, active (running) on m1\n" in out
    assert out.endswith("\nm1/10.0.0.1:\nfrom the pod\n")
    assert api.execs == [["chroot", "/host", "systemctl", "status", "-l", "--no-pager", "--", "web@1.service"]]


def test_status_without_a_way_still_tells_what_is_known(api: UnitApi, careen: Careen) -> None:
    code, out, err = careen("status", "--via", "exec", "web@1", "idle", "nobody")
    assert code == 1
    assert "web@1.service - Web" in out
    assert "idle.service - Web" in out
    assert err.splitlines() == [
        "there is no unit nobody.service",
        "there is no way to machine m1 (exec: no agent's pod runs there in namespace careen-system)",
        "unit idle.service is on no machine",
    ]


@pytest.mark.parametrize(("unit", "code"), [("web@1", 0), ("idle", 3)])
def test_status_by_what_the_cluster_knows_alone(careen: Careen, unit: str, code: int) -> None:
    assert careen("status", "--via", "none", unit)[::2] == (code, "")


def test_status_of_a_global_unit_is_that_of_each_machine(api: UnitApi, careen: Careen) -> None:
    add_agent(api, "m1")
    add_agent(api, "m2")
    code, out, _ = careen("status", "log")
    assert code == 0
    assert out.count("from the pod") == 2
    assert len(api.execs) == 2
    careen("status", "--machine", "m2", "log")
    assert len(api.execs) == 3


def test_status_goes_on_with_the_next_machine_when_the_way_to_one_breaks(api: UnitApi, careen: Careen) -> None:
    add_agent(api, "m1")
    add_agent(api, "m2")
    api.exec_code = -1
    code, out, err = careen("status", "log")
    assert code == 1
    assert len(api.execs) == 2
    assert "m2/10.0.0.2:" in out
    assert err.count("the connection was lost") == 2


def test_the_journal_of_a_global_unit_needs_a_machine(api: UnitApi, careen: Careen) -> None:
    add_agent(api, "m2")
    assert careen("journal", "log")[::2] == (
        1,
        "careen: unit log.service is on 2 machines: name one by --machine (m1, m2)\n",
    )
    assert careen("journal", "--machine", "m201", "log")[:2] == (0, "from the pod\n")


def test_a_global_unit_is_restarted_on_one_machine_after_the_other(api: UnitApi, careen: Careen) -> None:
    add_agent(api, "m1")
    add_agent(api, "m2")
    code, out, _ = careen("restart", "log")
    assert code == 0
    assert "Restarted global unit log.service on m1\n" in out
    assert [words[-4:] for words in api.execs] == [["systemctl", "restart", "--", "log.service"]] * 2
    api.exec_code = 1
    assert careen("restart", "log")[0] == 1
    assert len(api.execs) == 3


@pytest.mark.parametrize(
    ("words", "called"),
    [
        (["m1"], "-o|ConnectTimeout=10|--|10.0.0.1|"),
        (["m201", "ls", "-l", "a b"], "-o|ConnectTimeout=10|--|10.0.0.2|ls -l 'a b'|"),
        (["-A", "--machine", "m1", "true"], "-o|ConnectTimeout=10|-A|--|10.0.0.1|true|"),
        (["--unit", "web@1", "--tunnel", "gate"], "-o|ConnectTimeout=10|-J|gate|--|10.0.0.1|"),
        (["web@1.service"], "-o|ConnectTimeout=10|--|10.0.0.1|"),
    ],
)
def test_ssh_goes_to_machines_and_to_those_of_units(
    careen: Careen, ssh: Callable[[int], Path], words: list[str], called: str
) -> None:
    calls = ssh(4)
    assert careen("ssh", *words)[0] == 4
    assert calls.read_text() == called


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "name a machine or a unit"),
        (["--machine", "m1", "--unit", "web"], 2, "can't both be given"),
        (["--ssh-username", "-oProxyCommand=x", "m1"], 2, "must be a name"),
        (["--machine", "m"], 1, "it fits: m1, m2"),
        (["nobody"], 1, "there is no unit nobody"),
        (["--unit", "idle"], 1, "is on no machine"),
    ],
)
def test_ssh_to_nowhere(careen: Careen, words: list[str], code: int, said: str) -> None:
    ended, _, err = careen("ssh", *words)
    assert ended == code
    assert said in " ".join(err.replace("│", " ").split())


@pytest.mark.parametrize("command", [show_unit, restart_unit])
def test_a_unit_is_never_an_option_of_systemctl(command: Callable[[str], list[str]]) -> None:
    """-.mount is a unit, and -Hother.service would have systemctl go to another machine."""
    assert command("-Hother.service")[-2:] == ["--", "-Hother.service"]


def test_a_host_is_never_an_option_of_ssh() -> None:
    words = call_ssh("-oProxyCommand=x", SshOptions())
    assert words.index("--") < words.index("-oProxyCommand=x")


@pytest.mark.parametrize(
    ("container", "root"),
    [
        ({"name": "agent", "args": ["agent", "--host=linux", "--host-root=/host"]}, "/host"),
        ({"name": "agent", "command": ["careen", "agent", "--host", "linux"]}, "/"),
        ({"name": "agent", "args": ["agent"], "env": [{"name": "CAREEN_AGENT_HOST", "value": "linux"}]}, "/"),
        ({"name": "agent", "args": ["agent", "--host=image"]}, None),
        ({"name": "other", "args": ["agent", "--host=linux"]}, None),
    ],
)
def test_where_an_agent_sees_its_machine(container: dict[str, Any], root: str | None) -> None:
    assert find_host_root({"spec": {"containers": [container]}}) == root


def test_at_the_root_nothing_is_entered() -> None:
    assert enter_machine("/", ["true"], ends_with_us=False) == ["true"]


@pytest.mark.parametrize(
    ("unit", "options", "asked"),
    [
        ("web@1.service", JournalOptions(5), {"query": "web@1", "tailLines": 5}),
        ("web.socket", JournalOptions(), None),
        ("a\\x2d.service", JournalOptions(), None),
        ("web.service", JournalOptions(follow=True), None),
        ("web.service", JournalOptions(output="json"), None),
    ],
)
def test_what_a_kubelet_can_be_asked(unit: str, options: JournalOptions, asked: object) -> None:
    assert ask_kubelet(unit, options) == asked


@pytest.mark.parametrize(
    ("media_type", "text", "journal"),
    [
        ("text/plain", "line\n", "line\n"),
        ("text/html", "<pre>", None),
        ("text/plain", "\noptions present and query resolved to log files for [web]\ntry without\n", None),
    ],
)
def test_what_a_kubelet_answers(media_type: str, text: str, journal: str | None) -> None:
    assert read_kubelet(media_type, text) == journal
