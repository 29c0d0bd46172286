"""Parts of the test machines that need no machine: archives, the cache, the console."""

import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from testos.cache import digest_inputs, keep
from testos.cpio import Archive, resolve_inside
from testos.debian import PackageSet, read_lock, write_preferences
from testos.serial import Console, ConsoleTimeoutError


def test_an_archive_is_what_cpio_reads_and_the_same_each_time(tmp_path: Path, busybox: str) -> None:
    def make() -> bytes:
        archive = Archive()
        archive.add_link("bin/sh", "busybox")
        archive.add_file("init", b"#!/bin/sh\n", 0o755)
        archive.add_file("lib/deep/file", b"odd")
        archive.add_folder("proc")
        return archive.dump()

    subprocess.run([busybox, "cpio", "-id"], input=make(), cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "init").read_bytes() == b"#!/bin/sh\n"
    assert (tmp_path / "init").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "lib/deep/file").read_bytes() == b"odd"
    assert (tmp_path / "bin/sh").readlink() == Path("busybox")
    assert (tmp_path / "proc").is_dir()
    assert make() == make()


def test_links_of_a_tree_stay_in_the_tree(tmp_path: Path) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/real").write_text("x")
    (tmp_path / "lib").symlink_to("usr/lib")
    (tmp_path / "usr/lib/alias").symlink_to("/lib/real")
    assert resolve_inside(tmp_path, "/lib/alias") == tmp_path / "usr/lib/real"
    with pytest.raises(FileNotFoundError):
        resolve_inside(tmp_path, "/lib/other")


def test_the_cache_keeps_whole_things_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAREEN_CACHE", str(tmp_path))
    built: list[Path] = []

    def build(folder: Path) -> None:
        (folder / "half").touch()
        built.append(folder)
        if len(built) == 1:
            raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        keep("thing", "key", build, report=lambda _: None)
    for _ in range(2):
        assert (keep("thing", "key", build, report=lambda _: None) / "half").exists()
    assert len(built) == 2
    assert keep("thing", "other", build, report=lambda _: None) != keep("thing", "key", build, report=lambda _: None)


def test_the_cache_forgets_what_nobody_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAREEN_CACHE", str(tmp_path))
    ages = {
        "thing-1": 15 * 24,
        "thing-2": 7,
        "thing-3": 5,
        "thing-4": 4,
        "thing-5": 3,
        "other-1": 7,
        ".thing-6.new": 400,
    }
    for name, hours in ages.items():
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        os.utime(folder, (time.time() - 3600 * hours,) * 2)
    keep("thing", "7", lambda _: None, report=lambda _: None)
    left = {path.name for path in (tmp_path / "images").iterdir() if path.is_dir()}
    assert left == {"thing-3", "thing-4", "thing-5", "thing-7", "other-1"}


def test_a_name_changes_with_every_input(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("1")
    names = {digest_inputs(file), digest_inputs(file, "a", "b"), digest_inputs(file, "ab"), digest_inputs(tmp_path)}
    file.write_text("2")
    assert len(names | {digest_inputs(file)}) == 5


def test_written_down_versions_win_and_the_base_takes_no_other_security_updates() -> None:
    text = write_preferences(PackageSet.BASE, {"openssl": "3.0.20"})
    stanzas = text.strip().split("\n\n")
    assert stanzas[0] == "Package: openssl\nPin: version 3.0.20\nPin-Priority: 1001"
    assert stanzas[-1] == "Package: *\nPin: release n=bookworm-security\nPin-Priority: -1"
    assert write_preferences(PackageSet.SECURITY, {}).strip() == ""


def test_the_two_sets_differ_by_security_updates_and_have_one_kernel() -> None:
    base, security = read_lock(PackageSet.BASE), read_lock(PackageSet.SECURITY)
    assert base.keys() == security.keys()
    assert sum(base[name] != security[name] for name in base) >= 10
    assert base["linux-image-cloud-amd64"] == security["linux-image-cloud-amd64"]


def test_a_console_goes_on_behind_the_last_line_it_gave(tmp_path: Path) -> None:
    console = Console(tmp_path / "log")
    ours, theirs = socket.socketpair()
    thread = console.attach(ours)
    theirs.sendall(b"one up\r\ntwo \x1b[1mup\x1b[0m\nhalf a")
    assert console.wait_for("up", 5).text == "one up"
    assert console.wait_for("up", 5).text == "two up"
    with pytest.raises(ConsoleTimeoutError, match="it did not within"):
        console.wait_for("up", 0.05)
    theirs.close()
    with pytest.raises(ConsoleTimeoutError, match="the machine ended"):
        console.wait_for("up", 60)
    thread.join(5)
    assert [line.text for line in console.lines] == ["one up", "two up", "half a"]
    assert (tmp_path / "log").read_text().count("\n") == 3
