"""The image's file system as a folder: two parts, what changes seldom and Careen itself."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from .settings import EPOCH_SECONDS, PACKAGES, PYTHON, TOP, USER, ImageError

SITE = "usr/lib/python3/dist-packages"
SECONDS = 600.0
FOLDERS = ("tmp", "proc", "sys", "dev", "run", "etc", "var/lib", "host", "usr/bin", "usr/sbin", SITE)
_LINKS = {
    "bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64", "var/run": "/run",
    "usr/bin/python3": f"python{PYTHON}",
}  # fmt: skip
_MERGED = re.compile(r"^(bin|sbin|lib|lib64)/")
_ONLY = {
    "coreutils": re.compile(r"^usr/sbin/chroot$"),  # By it the agent runs the machine's own programs.
    "e2fsprogs": re.compile(r"^usr/sbin/(debugfs|mke2fs|mkfs\.ext4)$"),
    "erofs-utils": re.compile(r"^usr/bin/mkfs\.erofs$"),
    "base-files": re.compile(r"^(etc/(debian_version|os-release)|usr/lib/os-release)$"),
    "ca-certificates": re.compile(r"^usr/share/ca-certificates/mozilla/"),
}
"""What is taken of a package; of others all but _LEFT_OUT."""
_PYTHON_LIBRARY = f"usr/lib/python{PYTHON}/"
_LEFT_OUT = re.compile(
    r"^usr/(share|include|lib/valgrind|lib/x86_64-linux-gnu/(gconv|audit|perl)|lib/aarch64-linux-gnu/(gconv|audit))/"
    r"|^(etc|var)/"
    rf"|^{_PYTHON_LIBRARY}(test|idlelib|lib2to3|pydoc_data|ensurepip|distutils|tkinter|turtledemo|unittest/test|wsgiref"
    r"|curses|dbm|sqlite3|msilib|config-[^/]*)/"
    rf"|^{_PYTHON_LIBRARY}(turtle|_pyrepl)\.py$"
    rf"|^{_PYTHON_LIBRARY}lib-dynload/(_sqlite3|_dbm|_gdbm|_curses|_curses_panel|nis|readline|_tkinter|_test[^/]*|xxlimited[^/]*|ossaudiodev|audioop|_xxtestfuzz)\."
)
_NEVER_RUN = re.compile(
    r"(^|/)(tests?|testing|__pycache__)/|\.(pyi|pxd|pyx|pxi|c|h|cpp|so\.debug)$|^[^/]+\.data/scripts/"
    r"|^zstandard/_cffi|^zstandard/backend_(cffi|rust)|^pygments/(lexers|styles|formatters)/(?!__init__|_mapping)"
    r"|^kubernetes/(aio/)?client/(api/|models/(?!__init__|v1_(object_meta|owner_reference|managed_fields_entry)\.))"
    r"|^kubernetes/(docs|test|e2e_test)/|^aiohttp/_websocket/.*\.c$|\.dist-info/(RECORD|INSTALLER|REQUESTED|direct_url\.json)$"
)
"""Of the client only its connections are used: its classes for each kind, 110 MB of them, are never imported."""
_SCRIPT = f"#!/usr/bin/python{PYTHON}\nfrom careen.cli.main import main\n\nmain()\n"


def make_base(root: Path, debs: Path, wheels: Path) -> None:
    """Fill a folder with everything but Careen. Raises ImageError."""
    for name in FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    for link, target in _LINKS.items():
        (root / link).symlink_to(target)
    for name in PACKAGES:
        _unpack_package(debs / f"{name}.deb", name, root)
    _write_settings(root)
    for wheel in sorted(wheels.glob("*.whl")):
        _unpack_wheel(wheel, root / SITE)
    compile_all(root, "usr/lib")
    (root / "tmp").chmod(0o1777)


def make_program(root: Path) -> None:
    """Fill a folder with Careen itself, for a layer above the base."""
    site, programs = root / SITE, root / "usr/bin"
    programs.mkdir(parents=True)
    shutil.copytree(TOP / "operator/careen", site / "careen", ignore=shutil.ignore_patterns("__pycache__"))
    compile_all(root, SITE)
    (programs / "careen").write_text(_SCRIPT)
    (programs / "careen").chmod(0o755)
    (programs / "kubectl-careen").symlink_to("careen")
    notices = root / "usr/share/doc/careen"
    notices.mkdir(parents=True)
    shutil.copyfile(TOP / "LICENSE", notices / "LICENSE")


def compile_all(root: Path, folder: str) -> None:
    """Byte code that is not checked against times, by this Python, which has to be the image's."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" != PYTHON:
        raise ImageError(f"this is Python {sys.version.split()[0]}; the image's byte code is made by {PYTHON}")
    command = [
        sys.executable, "-I", "-m", "compileall", "-q", "-j", "1", "--invalidation-mode", "unchecked-hash",
        "-s", str(root), "-p", "/", str(root / folder),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS, env={"LC_ALL": "C"})
    if done.returncode:
        raise ImageError(f"compileall failed: {(done.stdout + done.stderr).strip()[-1000:]}")


def _unpack_package(deb: Path, name: str, root: Path) -> None:
    only = _ONLY.get(name)
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                path = _MERGED.sub(r"usr/\1/", member.name.removeprefix("./"))
                wanted = only.search(path) if only else not _LEFT_OUT.search(path)
                if wanted and not member.isdir():
                    _put(archive, member, root, path)
        process.stdout.read()
    if process.returncode:
        raise ImageError(f"{deb.name} can't be unpacked; remove it from the cache, and build again")
    _note_package(deb, name, root)


def _put(archive: tarfile.TarFile, member: tarfile.TarInfo, root: Path, path: str) -> None:
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    if member.issym():
        place.symlink_to(member.linkname)
    elif member.islnk():
        source = _MERGED.sub(r"usr/\1/", member.linkname.removeprefix("./"))
        shutil.copyfile(root / source, place)
        place.chmod((root / source).stat().st_mode)
    elif member.isfile():
        content = archive.extractfile(member)
        assert content is not None
        with place.open("wb") as file:
            shutil.copyfileobj(content, file)
        place.chmod(0o755 if member.mode & stat.S_IXUSR else 0o644)
    else:
        raise ImageError(f"{path} is neither a file nor a link; no package of the image has had one")


def _note_package(deb: Path, name: str, root: Path) -> None:
    """Leave a package's control text where scanners look for it in images without dpkg."""
    command = ["dpkg-deb", "--field", str(deb)]
    text = subprocess.run(command, capture_output=True, check=True, timeout=SECONDS).stdout
    note = root / "var/lib/dpkg/status.d" / name
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_bytes(text)


def _write_settings(root: Path) -> None:
    etc = root / "etc"
    shell = "/usr/sbin/nologin"
    etc.joinpath("passwd").write_text(f"root:x:0:0:root:/root:{shell}\ncareen:x:{USER}:{USER}:Careen:/tmp:{shell}\n")
    etc.joinpath("group").write_text(f"root:x:0:\ncareen:x:{USER}:\n")
    etc.joinpath("nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    authorities = root / "usr/share/ca-certificates"
    bundle = b"".join(path.read_bytes().rstrip() + b"\n" for path in sorted(authorities.rglob("*.crt")))
    place = etc / "ssl/certs/ca-certificates.crt"
    place.parent.mkdir(parents=True)
    place.write_bytes(bundle)
    shutil.rmtree(authorities)


def _unpack_wheel(wheel: Path, site: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            # What a wheel wants beside the packages comes below NAME.data/; purelib and platlib are the same here.
            name = re.sub(r"^[^/]+\.data/(purelib|platlib)/", "", entry.filename)
            if entry.is_dir() or _NEVER_RUN.search(name):
                continue
            place = site / name
            if not place.resolve().is_relative_to(site.resolve()):
                raise ImageError(f"{wheel.name} has a file outside its folder: {entry.filename}")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(archive.read(entry))
            place.chmod(0o644)


def iterate(root: Path) -> list[Path]:
    """All paths below a folder in the order in which an archive has them."""
    return sorted(root.rglob("*"), key=lambda path: path.relative_to(root).as_posix())


def describe(path: Path, root: Path) -> tarfile.TarInfo:
    """An archive's entry for a path: nothing of this machine, of whoever builds it, or of today."""
    entry = tarfile.TarInfo(path.relative_to(root).as_posix())
    entry.mtime = EPOCH_SECONDS
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, str(path.readlink()), 0o777
    elif stat.S_ISDIR(mode):
        entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if mode & stat.S_ISVTX else 0o755
    else:
        entry.size, entry.mode = path.lstat().st_size, 0o755 if mode & stat.S_IXUSR else 0o644
    return entry
