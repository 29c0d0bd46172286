"""Building: the same tree gives the same bytes, everything of the tree is in the image, and tools of others agree."""

import hashlib
import os
import py_compile
import re
import shutil
import stat
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import zstandard

from careen.release.build import SOURCE_DATE, Build, build_release
from careen.release.errors import BuildError
from careen.release.manifest import Image, ReleaseDocument, parse_document
from careen.release.verity import BLOCK_BYTES, check_tree, hash_block

PLACES = "/usr/sbin:/sbin:/usr/bin:/bin"

ODD_NAMES = [
    r"system-systemd\x2dcryptsetup.slice",
    "#hash",
    "it's",
    "$HOME",
    "*",
    "[",
    "-dash",
    " lead",
    "tab\there",
    "<12>",
]
ODD_NAMES += ["über", "raw\udcff", "a;b", "back\\", "~", "..hidden", "%41"]


def run(tool: str, *arguments: str) -> str:
    found = shutil.which(tool, path=PLACES) or tool
    done = subprocess.run([found, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def make_tree(root: Path, *, backwards: bool = False, when: float | None = None) -> Path:
    """A small OS. backwards: made in the opposite order, so that the host's folders list it otherwise."""
    usr = root / "usr"
    files = {f"share/doc/{number:03}": f"text {number}\n".encode() * number * 40 for number in range(120)}
    files |= {"bin/tool": os.urandom(0) + bytes(range(256)) * 800, "lib/a b": b"space", 'lib/quo"te': b"quote"}
    files |= {f"lib/{name}": name.encode("utf-8", "surrogateescape") for name in ODD_NAMES}
    files |= {"lib/zeros": bytes(1 << 20), "lib/empty": b"", "lib/big": hashlib.sha256(b"x").digest() * 160_000}
    names = sorted(files, reverse=backwards)
    for name in names:
        place = usr / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(files[name])
        place.chmod(0o644)
    (usr / "bin/tool").chmod(0o4755)
    for name in ("bin/tool2", "share/tool3"):
        os.link(usr / "bin/tool", usr / name)
    (usr / "lib/link").symlink_to("../bin/tool")
    os.symlink("./" + "x" * 80, usr / "lib/dangling")  # noqa: PTH211
    (usr / "empty").mkdir()
    for folder in (usr, *(path for path in usr.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    if when is not None:
        for path in usr.rglob("*"):
            os.utime(path, (when, when), follow_symlinks=False)
    return root


def build(tree: Path, out: Path, **options: Any) -> Image:
    document = build_release(Build(tree, "1.0", "demo", "x86_64", **options), out)
    assert parse_document((out / "release.json").read_bytes()) == document
    return document.images["x86_64"]


def read_all(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["ext4", "erofs"])
def test_the_same_tree_gives_the_same_bytes(tmp_path: Path, kind: Any) -> None:
    """Made later, in another order, under another umask, environment and working directory."""
    first = make_tree(tmp_path / "first", when=1_700_000_000)
    build(first, tmp_path / "a", filesystem=kind)
    old_umask = os.umask(0o077)
    try:
        make_tree(tmp_path / "elsewhere" / "second", backwards=True, when=1_750_000_000.5)
        out = tmp_path / "elsewhere" / "b"
        command = "import sys; from pathlib import Path; from careen.release.build import Build, build_release; "
        command += f"build_release(Build(Path('second'), '1.0', 'demo', 'x86_64', filesystem={kind!r}), Path('b'))"
        environment = os.environ | {
            "TZ": "Asia/Kathmandu",
            "LC_ALL": "C",
            "PYTHONPATH": str(Path("operator").resolve()),
        }
        subprocess.run([sys.executable, "-c", command], check=True, cwd=tmp_path / "elsewhere", env=environment)
    finally:
        os.umask(old_umask)
    assert read_all(out) == read_all(tmp_path / "a")


@pytest.mark.parametrize("kind", ["ext4", "erofs"])
def test_what_is_built_fits_together(tmp_path: Path, kind: Any) -> None:
    image = build(make_tree(tmp_path / "tree"), tmp_path / "out", filesystem=kind)
    data = (tmp_path / "out" / "image").read_bytes()
    assert len(data) == image.size
    assert hashlib.sha256(data).hexdigest() == image.sha256
    files = {name: (tmp_path / "out" / file.path).read_bytes() for name, file in parts(image).items()}
    for name, file in parts(image).items():
        assert len(files[name]) == file.length
        assert hashlib.sha256(files[name]).hexdigest() == file.sha256
    system = data[: image.data_blocks * BLOCK_BYTES]
    tree = zstandard.ZstdDecompressor().decompress(files["tree"])
    assert tree == data[len(system) :]
    leaves = check_tree(tree, image.data_blocks, bytes.fromhex(image.verity_root))
    assert leaves == b"".join(hash_block(system[at : at + BLOCK_BYTES]) for at in range(0, len(system), BLOCK_BYTES))
    assert b"".join(split_frames(image, files)) == system
    image_path = str(tmp_path / "out" / "image")
    run("veritysetup", "verify", image_path, image_path, image.verity_root, f"--hash-offset={len(system)}")


def parts(image: Image) -> dict[str, Any]:
    return {"tree": image.tree, "table": image.table, "frames": image.frames}


def split_frames(image: Image, files: dict[str, bytes]) -> list[bytes]:
    table = zstandard.ZstdDecompressor().decompress(files["table"])
    lengths = struct.unpack(f"<{len(table) // 4}I", table)
    assert len(lengths) == image.frame_count
    found, place = [], 0
    for length in lengths:
        found.append(zstandard.ZstdDecompressor().decompress(files["frames"][place : place + length]))
        place += length
    assert place == len(files["frames"])
    assert {len(frame) for frame in found[:-1]} <= {image.frame_blocks * BLOCK_BYTES}
    return found


def test_ext4_holds_all_that_the_tree_has(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", when=900_000_000)
    os.utime(tree / "usr/lib/big", (1_700_000_000, 1_700_000_000))
    image = build(tree, tmp_path / "out")
    data = (tmp_path / "out/image").read_bytes()[: image.data_blocks * BLOCK_BYTES]
    system = tmp_path / "system"
    system.write_bytes(data)
    run("e2fsck", "-fn", str(system))

    def look(path: str) -> str:
        return run("debugfs", "-R", f'stat "{path.replace(chr(34), chr(34) * 2)}"', str(system))

    assert re.search(r"Type: regular +Mode: +04755", look("/bin/tool"))
    assert "Links: 3" in look("/bin/tool")
    inode = r"Inode: (\d+)"
    assert re.findall(inode, look("/share/tool3")) == re.findall(inode, look("/bin/tool"))
    assert 'Fast link dest: "../bin/tool"' in look("/lib/link")
    assert run("debugfs", "-R", "cat /lib/dangling", str(system)) == "./" + "x" * 80
    assert f"mtime: 0x{900_000_000:08x}" in look('/lib/quo"te')
    assert f"mtime: 0x{SOURCE_DATE:08x}" in look("/lib/big")
    assert f"mtime: 0x{SOURCE_DATE:08x}" in look("/")
    (tmp_path / "dump").mkdir()
    run("debugfs", "-R", f"rdump / {tmp_path / 'dump'}", str(system))
    for path in tree.joinpath("usr").rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert (tmp_path / "dump" / path.relative_to(tree / "usr")).read_bytes() == path.read_bytes(), path


def test_erofs_holds_all_that_the_tree_has(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", when=900_000_000)
    image = build(tree, tmp_path / "out", filesystem="erofs")
    system = tmp_path / "system"
    system.write_bytes((tmp_path / "out/image").read_bytes()[: image.data_blocks * BLOCK_BYTES])
    run("fsck.erofs", f"--extract={tmp_path / 'dump'}", "--preserve-perms", "--no-preserve-owner", str(system))
    state = (tmp_path / "dump/bin/tool").stat()
    assert stat.S_IMODE(state.st_mode) == 0o4755
    assert state.st_mtime == 900_000_000
    assert "Links: 3" in run("dump.erofs", "--path=/bin/tool", str(system))
    for path in tree.joinpath("usr").rglob("*"):
        copy = tmp_path / "dump" / path.relative_to(tree / "usr")
        if path.is_symlink():
            assert os.readlink(copy) == os.readlink(path)  # noqa: PTH115
        elif path.is_file():
            assert copy.read_bytes() == path.read_bytes(), path


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owners_and_capabilities_are_kept_unless_all_is_roots(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    os.chown(tree / "usr/share/doc", 12, 70_000)
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(tree / "usr/lib/a b", "security.capability", capability)
    image = build(tree, tmp_path / "out", filesystem_bytes=32 << 20)
    assert image.data_blocks == (32 << 20) // BLOCK_BYTES
    system = str(tmp_path / "out/image")
    assert re.search(r"User: +12 +Group: 70000", run("debugfs", "-R", "stat /share/doc", system))
    shown = run("debugfs", "-R", 'ea_get -x "/lib/a b" security.capability', system)
    assert bytes.fromhex("".join(re.findall(r"\b[0-9a-f]{2}\b", shown.partition("=")[2]))) == capability
    build(tree, tmp_path / "root", all_root=True)
    assert re.search(r"User: +0 +Group: +0", run("debugfs", "-R", "stat /share/doc", str(tmp_path / "root/image")))


def test_compiled_python_stays_fresh(tmp_path: Path) -> None:
    """A time that is set back would make Python compile at every start, on a /usr that can't keep the result."""
    source = tmp_path / "tree/usr/lib/python3/module.py"
    source.parent.mkdir(parents=True)
    source.write_text("x = 1\n")
    os.utime(source, (1_650_000_000, 1_650_000_000))
    py_compile.compile(str(source), invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP)
    os.utime(source, (1_750_000_000, 1_750_000_000))
    build(tmp_path / "tree", tmp_path / "out")
    shown = run("debugfs", "-R", "stat /lib/python3/module.py", str(tmp_path / "out/image"))
    assert f"mtime: 0x{1_650_000_000:08x}" in shown


def test_kernel_and_initrd_are_put_into_the_image(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    kernel, initrd = tmp_path / "vmlinuz-6.1", tmp_path / "initrd-6.1"
    kernel.write_bytes(b"kernel" * 1000)
    initrd.write_bytes(b"initrd" * 1000)
    image = build(tree, tmp_path / "out", kernel=kernel, initrd=initrd)
    assert image.kernel is not None
    assert image.initrd is not None
    assert (image.kernel.path, image.kernel.length) == ("boot/vmlinuz", 6000)
    assert image.initrd.sha256 == hashlib.sha256(initrd.read_bytes()).hexdigest()
    assert run("debugfs", "-R", "cat /boot/vmlinuz", str(tmp_path / "out/image")) == "kernel" * 1000
    assert not (tree / "usr/boot").exists()


def test_a_kernel_in_the_tree_is_taken_where_it_lies(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    module = tree / "usr/lib/modules/6.1/vmlinuz"
    module.parent.mkdir(parents=True)
    module.write_bytes(b"kernel")
    image = build(tree, tmp_path / "out", kernel=module)
    assert image.kernel is not None
    assert image.kernel.path == "lib/modules/6.1/vmlinuz"
    (tree / "usr/boot").mkdir()
    (tree / "usr/boot/vmlinuz").symlink_to("../lib/modules/6.1/vmlinuz")
    image = build(tree, tmp_path / "out")
    assert image.kernel is not None
    assert image.kernel.path == "lib/modules/6.1/vmlinuz"
    assert image.initrd is None


def test_a_usr_tree_is_as_good_as_a_root_tree(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    (tree / "etc").mkdir()
    assert build(tree, tmp_path / "a") == build(tree / "usr", tmp_path / "b")


def test_fields_reach_the_document(tmp_path: Path) -> None:
    settings = Build(
        make_tree(tmp_path / "tree"), "2026.11-1", "demo", "aarch64",
        min_version="2026.1", state_version=3, agent_protocol=2, capabilities=("trial-timer",),
    )  # fmt: skip
    document = build_release(settings, tmp_path / "out")
    said = document.model_dump(exclude={"images"})
    assert said == {
        "format_version": 1, "version": "2026.11-1", "product": "demo", "min_version": "2026.1", "state_version": 3,
        "agent_protocol": 2, "capabilities": ("trial-timer",),
    }  # fmt: skip
    assert list(document.images) == ["aarch64"]


def test_what_can_not_be_built_is_said(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    with pytest.raises(BuildError, match=r"version is '1\.\.2'"):
        build_release(Build(tree, "1..2", "demo", "x86_64"), tmp_path / "out")
    with pytest.raises(BuildError, match="is no folder"):
        build(tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(BuildError, match="1000; allowed: a multiple of 4096"):
        build(tree, tmp_path / "out", filesystem_bytes=1000)
    with pytest.raises(BuildError, match="could not fill a file system of 3145728 bytes"):
        build(tree, tmp_path / "out", filesystem_bytes=3 << 20)
    with pytest.raises(BuildError, match="lies in the tree that is built"):
        build(tree, tree / "usr/out")
    with pytest.raises(BuildError, match="is no file; allowed: a kernel"):
        build(tree, tmp_path / "out", kernel=tmp_path / "nothing")
    os.mkfifo(tree / "usr/pipe")
    with pytest.raises(BuildError, match="pipe is a device, socket or pipe"):
        build(tree, tmp_path / "out")
    assert not (tmp_path / "out/release.json").exists()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/letter").write_text("do not lose")
    with pytest.raises(BuildError, match="precious is not empty and holds no build"):
        build(tree, tmp_path / "precious")


def test_a_later_build_replaces_an_earlier_one(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    build(tree, tmp_path / "out")
    (tree / "usr/bin/tool").write_bytes(b"new")
    image = build(tree, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["files", "image", "release.json"]
    assert {f"files/{path.name}" for path in (tmp_path / "out/files").iterdir()} == {
        file.path for file in parts(image).values()
    }


def test_an_update_of_one_file_changes_few_blocks(tmp_path: Path) -> None:
    """The delta of the next release is only as small as the builder is steady."""
    tree = make_tree(tmp_path / "tree")
    before = build(tree, tmp_path / "a")
    (tree / "usr/share/doc/050").write_bytes(b"changed\n" * 400)
    (tree / "usr/share/doc/zzz").write_bytes(b"new\n" * 400)
    after = build(tree, tmp_path / "b")
    assert before.data_blocks == after.data_blocks
    old = set(blocks_of(tmp_path / "a/image", before))
    new = [block for block in blocks_of(tmp_path / "b/image", after) if block not in old]
    assert len(new) <= 20


def blocks_of(path: Path, image: Image) -> list[bytes]:
    data = path.read_bytes()[: image.data_blocks * BLOCK_BYTES]
    return [data[at : at + BLOCK_BYTES] for at in range(0, len(data), BLOCK_BYTES)]


def test_a_document_survives_writing_and_reading(tmp_path: Path) -> None:
    build(make_tree(tmp_path / "tree"), tmp_path / "out")
    data = (tmp_path / "out/release.json").read_bytes()
    document = parse_document(data)
    assert document.dump() == data
    assert isinstance(document, ReleaseDocument)
    assert stat.S_ISREG((tmp_path / "out/image").stat().st_mode)
