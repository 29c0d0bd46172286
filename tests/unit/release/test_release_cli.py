"""`careen release` as people type it, from keys to what an update would fetch."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from careen.cli.main import run


class Shell:
    """Runs commands, and keeps what they say."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: object, code: int = 0) -> str:
        found = run("careen", ["release", *map(str, words)])
        said = self._capsys.readouterr()
        assert found == code, said.err
        return said.err if code else said.out


@pytest.fixture
def careen(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


def make_tree(root: Path, words: bytes) -> Path:
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/boot").mkdir()
    (root / "usr/boot/vmlinuz").write_bytes(b"kernel")
    (root / "usr/bin/tool").write_bytes(bytes(range(256)) * 4000)
    (root / "usr/bin/words").write_bytes(words)
    return root


def test_from_keys_to_an_update(tmp_path: Path, careen: Shell, web: Any) -> None:
    keys, repository = tmp_path / "keys", tmp_path / "repository"
    made = careen("keys", "create", keys).splitlines()
    assert [line.rpartition("/")[2] for line in made] == ["root.pem", "targets.pem", "snapshot.pem", "timestamp.pem"]
    assert made[0] in careen("keys", "show", keys / "root.pem")
    root = Path(careen("keys", "init", repository, "--keys", keys, "--days", "timestamp=3").strip())
    for version, words in (("1.0", b"old" * 9000), ("1.1", b"new" * 9000)):
        tree = make_tree(tmp_path / f"tree-{version}", words)
        careen("build", tree, "--out", tmp_path / version, "--version", version, "--product", "demo",
               "--architecture", "x86_64", "--capability", "trial-timer")  # fmt: skip
        told = careen("publish", repository, tmp_path / version, "--keys", keys, "--channel", "stable")
        assert told.splitlines()[-1].startswith(f"{version} sha256:")
    folder = json.loads(careen("inspect", repository, "--output", "json"))
    assert folder["channels"] == {"stable": "1.1"}
    assert list(folder["releases"]) == ["1.0", "1.1"]
    assert {role["role"]: role["valid"] for role in folder["roles"]} == dict.fromkeys(
        ("root", "targets", "snapshot", "timestamp"), True
    )
    with web(repository) as url:
        remote = ("inspect", url, "--trust-root", root, "--output", "json")
        assert json.loads(careen(*remote))["releases"] == folder["releases"]
        shown = json.loads(careen(*remote, "--channel", "stable", "--against", "1.0"))
    assert shown["digest"] == folder["releases"]["1.1"]
    assert shown["capabilities"] == ["trial-timer"]
    delta = shown["delta"]["x86_64"]
    assert 7 <= delta["missing"] <= 20
    assert delta["fetchedBytes"] < 20_000
    local = json.loads(careen("inspect", tmp_path / "1.1", "--against", tmp_path / "1.0", "-o", "json"))
    assert local == shown
    assert "fetches at most" in careen("inspect", repository, "--version", "1.1", "--against", "1.0")
    careen("publish", repository, "--version", "1.0", "--channel", "stable", "--keys", keys)
    assert "stable   1.0" in careen("inspect", repository)


def test_keys_are_rotated(tmp_path: Path, careen: Shell) -> None:
    keys, repository = tmp_path / "keys", tmp_path / "repository"
    careen("keys", "create", keys)
    careen("keys", "init", repository, "--keys", keys)
    old = careen("keys", "show", keys / "timestamp.pub.pem").split()[0]
    new = careen("keys", "create", tmp_path / "new", "--name", "timestamp-2").split()[0]
    change = ("--add", f"timestamp={tmp_path / 'new/timestamp-2.pub.pem'}", "--remove", f"timestamp={old[:12]}")
    told = careen("keys", "rotate", repository, "--keys", keys, "--keys", tmp_path / "new", *change)
    assert "root.json is now version 2" in told
    roles = json.loads(careen("inspect", repository, "-o", "json"))["roles"]
    assert next(role["keyIds"] for role in roles if role["role"] == "timestamp") == [new]
    assert "nothing in" in careen("sign", repository, "--keys", keys / "timestamp.pem", code=1)
    assert "timestamp.json version 3" in careen("sign", repository, "--keys", tmp_path / "new")


def test_encrypted_keys_need_their_passphrase(tmp_path: Path, careen: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAREEN_RELEASE_PASSPHRASE", raising=False)
    assert "needs a passphrase" in careen("keys", "create", tmp_path / "keys", "--encrypt", code=1)
    monkeypatch.setenv("CAREEN_RELEASE_PASSPHRASE", "open sesame")
    careen("keys", "create", tmp_path / "keys", "--encrypt")
    careen("keys", "init", tmp_path / "repository", "--keys", tmp_path / "keys")
    monkeypatch.delenv("CAREEN_RELEASE_PASSPHRASE")
    assert "is encrypted" in careen("sign", tmp_path / "repository", "--keys", tmp_path / "keys", code=1)


def test_what_goes_wrong_is_one_sentence(tmp_path: Path, careen: Shell) -> None:
    assert "allowed: a root file system or a /usr tree" in careen(
        "build", tmp_path / "nothing", "--out", tmp_path / "out", "--version", "1", "--product", "x", code=1
    )
    assert "believed only with a trust root" in careen("inspect", "http://127.0.0.1:1/", code=1)
    assert "neither a build nor a repository" in careen("inspect", tmp_path, "--version", "1", code=1)
    assert "is no folder" in careen("inspect", tmp_path / "nothing", code=1)
    key = tmp_path / "mine.pem"
    careen("keys", "create", tmp_path, "--name", "mine")
    assert "does not begin with a role" in careen("keys", "init", tmp_path / "r", "--keys", key, code=1)
    careen("keys", "create", tmp_path / "keys")
    careen("keys", "init", tmp_path / "r", "--keys", tmp_path / "keys")
    assert "is no ROLE=VALUE" in careen(
        "keys", "rotate", tmp_path / "r", "--keys", tmp_path / "keys", "--add", "boss=x", code=1
    )
    assert "give either builds or --version" in careen("publish", tmp_path / "r", "--keys", key, code=2)


def test_the_source_date_comes_from_the_environment(
    tmp_path: Path, careen: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = make_tree(tmp_path / "tree", b"x")
    for path in tree.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    options = ("--version", "1", "--product", "demo", "-o", "json")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1600000000")
    first = careen("build", tree, "--out", tmp_path / "a", *options)
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert careen("build", tree, "--out", tmp_path / "b", *options, "--source-date", "1600000000") == first
    assert careen("build", tree, "--out", tmp_path / "c", *options) != first
