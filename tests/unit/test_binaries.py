"""Building and caching the control plane's programs, with a stand-in for the go command."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from careen.sandbox.binaries import PROGRAMS, BuildProgress, SandboxError, cache_folder, ensure_binaries

FAKE_GO = """#!/bin/sh
if [ "$1" = env ]; then echo "$FAKE_GO_VERSION"; exit; fi
if [ "$1" = version ]; then echo "go version $FAKE_GO_VERSION linux/amd64"; exit; fi
echo "$@" >> "$FAKE_GO_CALLS"
echo "example.com/one"; echo "example.com/two"; echo "go: downloading something"
[ -n "$FAKE_GO_FAILS" ] && { echo "main.go:1: syntax error"; exit 1; }
sleep "${FAKE_GO_SECONDS:-0}"
while [ "$1" != -o ]; do shift; done
echo built > "$2"
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own and a fake go, first on the PATH; returns the file that lists its builds."""
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text(FAKE_GO)
    go.chmod(go.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{go.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("CAREEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE_GO_VERSION", "go1.99.0")
    monkeypatch.setenv("FAKE_GO_CALLS", str(tmp_path / "calls"))
    return tmp_path / "calls"


def ignore(progress: BuildProgress) -> None:
    """No display."""


def test_builds_what_is_missing_and_only_that(calls: Path) -> None:
    ensure_binaries(["etcd"], ignore)
    found = ensure_binaries(["etcd", "kwok"], ignore)
    ensure_binaries(["etcd", "kwok"], ignore)
    assert [line.split()[-1] for line in calls.read_text().splitlines()] == [
        "go.etcd.io/etcd/server/v3",
        "sigs.k8s.io/kwok/cmd/kwok",
    ]
    assert {name: path.read_text() for name, path in found.items()} == {"etcd": "built\n", "kwok": "built\n"}


def test_kubernetes_is_stamped_with_its_version(calls: Path) -> None:
    ensure_binaries(["kubectl"], ignore)
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
        assert f"-X {package}.gitVersion=v1.37.2" in calls.read_text()


def test_reports_progress_from_start_to_end(calls: Path) -> None:
    seen: list[BuildProgress] = []
    ensure_binaries(["kwok"], seen.append)
    assert (seen[0].packages, seen[0].done) == (0, False)
    assert (seen[-1].packages, seen[-1].done) == (2, True)


def test_failed_build_names_its_log_and_leaves_nothing(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_GO_FAILS", "1")
    with pytest.raises(SandboxError, match=r"building kwok failed \(log: .*kwok\.log\)[\s\S]*syntax error"):
        ensure_binaries(["kwok"], ignore)
    monkeypatch.delenv("FAKE_GO_FAILS")
    assert ensure_binaries(["kwok"], ignore)["kwok"].read_text() == "built\n"


def test_two_processes_do_not_build_the_same_twice(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_GO_SECONDS", "1")
    code = "from careen.sandbox.binaries import *; ensure_binaries(['kwok'], lambda _: None)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    both = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(2)]
    assert [process.wait(30) for process in both] == [0, 0]
    assert len(calls.read_text().splitlines()) == 1


@pytest.mark.parametrize("version", ["go1.19.8", ""])
def test_old_go_is_refused_in_one_sentence(calls: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setenv("FAKE_GO_VERSION", version)
    with pytest.raises(SandboxError, match=r"too old .*install Go 1\.\d+ or newer .*CAREEN_KUBECONFIG"):
        ensure_binaries(["etcd"], ignore)


def test_missing_go_is_said_in_one_sentence(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("careen.sandbox.binaries.shutil.which", lambda _: None)
    with pytest.raises(SandboxError) as missing:
        ensure_binaries(["kube-apiserver"], ignore)
    assert str(missing.value) == (
        "Go was not found: install Go 1.26 or newer to build the control plane, "
        "or name an existing cluster by CAREEN_KUBECONFIG or --kubeconfig"
    )


def test_cached_programs_need_no_go(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_binaries(PROGRAMS, ignore)
    monkeypatch.setattr("careen.sandbox.binaries.shutil.which", lambda _: None)
    assert set(ensure_binaries(PROGRAMS, ignore)) == set(PROGRAMS)


def test_cache_follows_the_user_s_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CAREEN_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path.home() / ".cache" / "careen"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "careen"
    monkeypatch.setenv("CAREEN_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
