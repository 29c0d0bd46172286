"""The container image: the same bytes each time, small, without privileges, and what the Dockerfile says."""

from __future__ import annotations

import io
import os
import re
import shlex
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from careen import __version__
from ociimage.archive import write_archive
from ociimage.build import Built, base_key
from ociimage.check import COMMANDS, Content, run_inside, unpacked
from ociimage.debian import fetch_packages, read_lock
from ociimage.layer import Layer
from ociimage.settings import PACKAGES, REFERENCE, TOP, VERSION
from ociimage.wheels import fetch_wheels, read_requirements
from testos.cache import digest_inputs, keep

pytestmark = pytest.mark.timeout(1800)
MIB = 1 << 20
MOST_PACKED = 35 * MIB
MOST_UNPACKED = 150 * MIB
ANEW = """
import os, sys, time
from pathlib import Path
from ociimage.build import pack_base, pack_program
from ociimage.debian import fetch_packages
from ociimage.wheels import fetch_wheels
os.umask(0o077)
part, path = sys.argv[1], Path(sys.argv[2])
layer = pack_program(path) if part == "program" else pack_base(fetch_packages(), fetch_wheels(), path)
print(layer.digest, layer.size, layer.contents)
"""


def pack_anew(part: str, folder: Path) -> Layer:
    """Pack a layer in a process that differs in all that must not matter."""
    path = folder / "other place" / f"{part}.tar.zst"
    path.parent.mkdir()
    source = os.pathsep.join((str(TOP / "operator"), str(TOP / "tools")))
    variables = {
        "PYTHONPATH": source,
        "TZ": "Asia/Tokyo",
        "PYTHONHASHSEED": "7",
        "LC_ALL": "C",
        "HOME": str(Path.home()),
    }
    environment = {name: os.environ[name] for name in ("PATH", "CAREEN_CACHE") if name in os.environ} | variables
    command = [sys.executable, "-c", ANEW, part, str(path)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    digest, size, contents = done.stdout.split()
    return Layer(path, digest, int(size), contents)


def test_the_same_inputs_give_the_same_bytes(built: Built, tmp_path: Path) -> None:
    base = tmp_path / "base"

    def prove(folder: Path) -> None:
        (folder / "digest").write_text(pack_anew("base", folder).digest)

    # All inputs of the base are in its key: as long as they are the same, so is what a second build of it gave.
    key = digest_inputs(base_key(fetch_packages(), fetch_wheels()), ANEW)
    base = keep("proof", key, prove)
    assert (base / "digest").read_text() == built.layers[0].digest
    program = pack_anew("program", tmp_path)
    again = tmp_path / "again.tar"
    assert write_archive([built.layers[0], program], again) == built.digest
    assert again.read_bytes() == built.archive.read_bytes()


def test_it_is_small(built: Built, content: Content) -> None:
    assert built.archive.stat().st_size < MOST_PACKED
    assert sum(map(len, content.layers)) < MOST_UNPACKED
    assert len(content.layers[1]) < 8 * MIB, "what changes with every commit is a small layer"


def test_nothing_in_it_gives_rights_or_installs_anything(content: Content) -> None:
    entries = list(content.entries())
    assert {(entry.uid, entry.gid) for entry in entries} == {(0, 0)}
    assert not [entry.name for entry in entries if entry.mode & (stat.S_ISUID | stat.S_ISGID)]
    writable = [entry.name for entry in entries if entry.mode & 0o022 and not entry.issym()]
    assert writable == ["tmp"]
    assert not [entry.name for entry in entries if not (entry.isfile() or entry.isdir() or entry.issym())]
    programs = {Path(entry.name).name for entry in entries if re.match(r"usr/s?bin/.", entry.name)}
    assert programs == {
        "careen", "chroot", "debugfs", "kubectl-careen", "mke2fs", "mkfs.erofs", "mkfs.ext4", "python3", "python3.11",
    }  # fmt: skip
    parts = re.compile(r"(^|/)(pip|ensurepip|setuptools|apt|pytest|mypy)(/|-[0-9.]+\.dist-info)")
    assert not [entry.name for entry in entries if parts.search(entry.name)]


def test_it_holds_the_locked_packages_and_no_others(content: Content) -> None:
    notes = {}
    with tarfile.open(fileobj=io.BytesIO(content.layers[0])) as base:
        for entry in base:
            if entry.name.startswith("var/lib/dpkg/status.d/") and entry.isfile():
                file = base.extractfile(entry)
                assert file is not None
                notes[Path(entry.name).name] = re.findall(r"^Version: (.+)$", file.read().decode(), re.MULTILINE)[0]
        names = base.getnames()
    locked = {package.name: package.version for package in read_lock().values()}
    assert notes.keys() == set(PACKAGES) == locked.keys()
    found = {match[1].lower().replace("_", "-"): match[2] for match in map(_DIST.search, names) if match}
    assert found == dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", read_requirements(), re.MULTILINE))


_DIST = re.compile(r"dist-packages/([^/]+?)-([^/-]+)\.dist-info/METADATA$")


def test_archive_and_dockerfile_agree(content: Content) -> None:
    """The Dockerfile is read, not built: that needs a container engine. Its file system comes from the same code."""
    stages = parse_dockerfile((TOP / "Dockerfile").read_text())
    config = content.config["config"]
    build, final = stages
    assert re.fullmatch(r"debian:bookworm-slim@sha256:[0-9a-f]{64} AS build", build[0][1])
    assert "python3 -m ociimage root /image" in build[-1][1]
    copied = {name for word, rest in build if word == "COPY" for name in rest.split()[:-1]}
    assert {"requirements.lock", "pyproject.toml", "LICENSE", "tools/testos", "tools/ociimage", "operator"} == copied
    assert [rest for word, rest in final if word in ("FROM", "COPY")] == ["scratch", "--from=build /image/ /"]
    said = {word: rest for word, rest in final if word not in ("FROM", "COPY")}
    assert said.keys() == {"LABEL", "ENV", "USER", "WORKDIR", "ENTRYPOINT"}
    assert dict(part.split("=", 1) for part in shlex.split(said["LABEL"])) == config["Labels"]
    assert shlex.split(said["ENV"]) == config["Env"]
    assert said["USER"] == config["User"] == "65532:65532"
    assert said["WORKDIR"] == config["WorkingDir"]
    assert said["ENTRYPOINT"] == '["careen"]'
    assert config["Entrypoint"] == ["careen"]


def test_it_is_named_by_its_version(content: Content) -> None:
    assert content.reference == REFERENCE == f"ghcr.io/careen-dev/careen:{__version__}"
    assert content.config["config"]["Labels"]["org.opencontainers.image.version"] == VERSION == __version__


@pytest.fixture(scope="module")
def root(content: Content) -> Iterator[Path]:
    """The unpacked file system."""
    if os.geteuid() != 0:
        pytest.skip("running what is in the image needs root: it is mounted read-only, and entered by chroot")
    with unpacked(content) as folder:
        yield folder


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_every_role_starts_as_its_user_on_a_read_only_root(root: Path, arguments: tuple[str, ...]) -> None:
    output = run_inside(root, ["careen", *arguments])
    assert ("Usage" in output) or output.strip().endswith(__version__)


def test_its_user_can_write_to_tmp_and_nowhere_else(root: Path) -> None:
    script = """
import os
print(os.getuid(), os.getgid(), os.getgroups())
def can_write(path):
    try:
        open(path, "w").close()
    except OSError:
        return False
    return True
print([path for path in ("/x", "/etc/x", "/usr/lib/x", "/var/lib/x", "/tmp/x") if can_write(path)])
"""
    assert run_inside(root, ["python3", "-c", script]).splitlines() == ["65532 65532 []", "['/tmp/x']"]


def test_what_careen_needs_of_the_system_is_there(root: Path) -> None:
    script = """
import importlib, pkgutil, ssl, subprocess, zoneinfo, careen
for each in pkgutil.walk_packages(careen.__path__, "careen."):
    if not each.name.endswith("__main__"):
        importlib.import_module(each.name)
assert len(ssl.create_default_context().get_ca_certs()) > 100
zoneinfo.ZoneInfo("Europe/Berlin")
for program in ("mkfs.ext4", "debugfs", "mkfs.erofs", "chroot"):
    assert subprocess.run([program, "-V" if program != "chroot" else "--version"]).returncode in (0, 1), program
"""
    run_inside(root, ["python3", "-c", script])


def parse_dockerfile(text: str) -> list[list[tuple[str, str]]]:
    """The instructions of each stage, with their continued lines joined."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    stages: list[list[tuple[str, str]]] = []
    for line in joined.splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            stages.append([])
        stages[-1].append((word, rest.strip()))
    return stages
