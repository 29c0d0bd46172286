"""The local gates of a trial."""

from __future__ import annotations

import http.server
import threading
import urllib.request
from collections.abc import Iterator

import pytest

from careen.agent.linux.health import Health, HealthSettings
from careen.agent.linux.root import Answer
from linux_machines import FakeMachine

STATE, LIST, KUBELET = "systemctl is-system-running", "systemctl list-units", "systemctl is-enabled kubelet"


def check(machine: FakeMachine, settings: HealthSettings | None = None, **answers: str) -> str | None:
    given = {"state": "running", "failed": "", "kubelet": "disabled"} | answers
    machine.commands.answers = {
        STATE: Answer(0 if given["state"] == "running" else 1, given["state"] + "\n"),
        LIST: Answer(0, given["failed"]),
        KUBELET: Answer(1, given["kubelet"] + "\n"),
    }
    return Health(machine.root, machine.commands, settings or HealthSettings(free_bytes=0)).check()


def test_a_running_system_is_well(bare: FakeMachine) -> None:
    assert check(bare) is None


@pytest.mark.parametrize("state", ["starting", "maintenance", "stopping", "initializing"])
def test_a_system_that_is_not_up_is_not_well(bare: FakeMachine, state: str) -> None:
    assert check(bare, state=state) == f"systemd says {state}"


def test_failed_units_are_named_unless_they_are_tolerated(bare: FakeMachine) -> None:
    failed = "a.service loaded failed failed A\nb@1.service loaded failed failed B\n"
    assert check(bare, state="degraded", failed=failed) == "units have failed: a.service, b@1.service"
    tolerant = HealthSettings(free_bytes=0, tolerated=("b@*.service", "a.service"))
    assert check(bare, tolerant, state="degraded", failed=failed) is None


def place(machine: FakeMachine, *names: str) -> None:
    folder = machine.root.at("/run/careen/units")
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def test_a_unit_that_the_cluster_has_placed_here_says_nothing_of_the_system(bare: FakeMachine) -> None:
    place(bare, "web.service")
    failed = "web.service loaded failed failed Web\n"
    assert check(bare, state="degraded", failed=failed) is None
    both = failed + "own.service loaded failed failed Own\n"
    assert check(bare, state="degraded", failed=both) == "units have failed: own.service"


@pytest.mark.parametrize(
    ("jobs", "failed", "sentence"),
    [
        ("71 migrate.service start running\n", "", None),
        (
            "71 migrate.service start running\n",
            "own.service loaded failed failed Own\n",
            "units have failed: own.service",
        ),
        ("71 migrate.service start running\n72 own.service start waiting\n", "", "systemd says starting"),
        ("", "", "systemd says starting"),
    ],
)
def test_a_boot_that_only_waits_for_placed_units_is_over(
    bare: FakeMachine, jobs: str, failed: str, sentence: str | None
) -> None:
    """Its oneshot may take hours, and the trial must not wait for it."""
    place(bare, "migrate.service")
    bare.commands.answers = {
        STATE: Answer(1, "starting\n"),
        "systemctl list-jobs": Answer(0, jobs),
        LIST: Answer(0, failed),
        KUBELET: Answer(1, "disabled\n"),
    }
    assert Health(bare.root, bare.commands, HealthSettings(free_bytes=0)).check() == sentence


@pytest.mark.parametrize("answer", [Answer(124, "", "systemctl did not end within 10 s"), Answer(0, "")])
def test_a_degraded_system_whose_failed_units_nobody_names_is_not_well(bare: FakeMachine, answer: Answer) -> None:
    bare.commands.answers = {STATE: Answer(1, "degraded\n"), LIST: answer}
    health = Health(bare.root, bare.commands, HealthSettings(free_bytes=0, tolerated=("*",), kubelet=""))
    assert "failed units can't be listed" in (health.check() or "")


def test_mounts_that_must_be_there(bare: FakeMachine) -> None:
    bare.mount("252:5 /data ext4 /dev/vda5")
    assert check(bare, HealthSettings(free_bytes=0, mounts=("/data",))) is None
    assert check(bare, HealthSettings(free_bytes=0, mounts=("/data", "/oem"))) == "nothing is mounted at /oem"


def test_a_full_disk_is_not_well(bare: FakeMachine) -> None:
    sentence = check(bare, HealthSettings(free_bytes=1 << 60))
    assert sentence is not None
    assert "bytes free; needed: 1152921504606846976" in sentence


@pytest.fixture
def kubelet() -> Iterator[tuple[str, list[int]]]:
    codes = [200]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(codes[0])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/healthz", codes
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_kubelet_is_asked_where_there_is_one(bare: FakeMachine, kubelet: tuple[str, list[int]]) -> None:
    url, codes = kubelet
    settings = HealthSettings(free_bytes=0, kubelet=url)
    assert check(bare, settings, kubelet="enabled") is None
    codes[0] = 500
    assert check(bare, settings, kubelet="enabled") == f"kubelet answers 500 at {url}"
    assert check(bare, settings, kubelet="disabled") is None
    away = HealthSettings(free_bytes=0, kubelet="http://127.0.0.1:1/healthz")
    sentence = check(bare, away, kubelet="enabled")
    assert sentence is not None
    assert "does not answer" in sentence


def test_the_kubelet_is_not_asked_through_the_proxy_for_releases(
    bare: FakeMachine, kubelet: tuple[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    # A process reads its proxies once; the tests before this one were of a process without.
    monkeypatch.setattr(urllib.request, "_opener", None)
    assert check(bare, HealthSettings(free_bytes=0, kubelet=kubelet[0]), kubelet="enabled") is None
