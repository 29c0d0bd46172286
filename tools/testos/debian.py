"""A Debian root tree from packages, at the versions that were written down, as far as the mirror still has them."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from enum import StrEnum
from pathlib import Path

from .cache import digest_inputs, keep

HERE = Path(__file__).parent
SUITE = "bookworm"
SECURITY = "bookworm-security"
EPOCH_SECONDS = 1_000_000_000
PACKAGES = (
    "systemd-sysv", "udev", "kmod", "dbus", "python3", "kexec-tools", "cryptsetup-bin", "iproute2", "busybox-static",
    "systemd-boot-efi", "runc",
)  # fmt: skip
NODE_PACKAGES = (
    *(name for name in PACKAGES if name not in ("python3", "runc")),
    "containerd", "crun", "containernetworking-plugins", "nftables",
)  # fmt: skip
"""Of a Kubernetes node: its agent comes in a pod and brings its own Python, and crun runs its containers."""
BUILD_SECONDS = 1200.0
_OPTIONS = (
    "--mode=root", "--variant=minbase", '--aptopt=Acquire::Retries "3"',
    *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale", "info", "lintian")),
)  # fmt: skip
_HOOK = HERE / "files/kernel-hook.sh"


class PackageSet(StrEnum):
    """Which versions of the packages are taken."""

    BASE = "base"
    """Those of the Debian release, without security updates but for the kernel."""
    SECURITY = "security"
    """The same packages with all security updates."""
    GENERIC = "generic"
    """With all security updates, and the kernel for all hardware: the cloud kernel has no driver of a watchdog."""
    NODE = "node"
    """With all security updates, and with what a Kubernetes node needs but its kubelet."""

    @property
    def names(self) -> tuple[str, ...]:
        """The packages that are asked for; they bring in others."""
        return NODE_PACKAGES if self is PackageSet.NODE else PACKAGES

    @property
    def kernel(self) -> str:
        """The package that names the kernel's package."""
        return "linux-image-amd64" if self is PackageSet.GENERIC else "linux-image-cloud-amd64"


class TestOsError(Exception):
    """An image can't be built or run; the message says what to do about it."""

    __test__ = False


def lock_file(packages: PackageSet) -> Path:
    """The written-down versions: one `name version` a line."""
    return HERE / f"packages/{packages}.txt"


def build_root(packages: PackageSet) -> Path:
    """A folder of the cache with `root/`, the unpacked system, and `packages.txt`, the versions that are in it.

    Needs root. Raises TestOsError when packages can't be had.
    """
    preferences = write_preferences(packages, read_lock(packages))
    return keep(
        f"root-{packages}",
        digest_inputs(preferences, packages.kernel, _HOOK, *packages.names, *_OPTIONS),
        _Builder(packages),
    )


class _Builder:
    def __init__(self, packages: PackageSet) -> None:
        self._packages = packages

    def __call__(self, folder: Path) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".pref") as preferences:
            preferences.write(write_preferences(self._packages, read_lock(self._packages)))
            preferences.flush()
            _mmdebstrap(folder, Path(preferences.name), self._packages)
        found = subprocess.run(
            ["dpkg-query", f"--admindir={folder}/root/var/lib/dpkg", "-W", "-f", "${Package} ${Version}\n"],
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        lines = [*found.stdout.splitlines(), (folder / "root/usr/boot/package").read_text().strip()]
        (folder / "root/usr/boot/package").unlink()
        (folder / "packages.txt").write_text("\n".join(sorted(lines)) + "\n")


def read_lock(packages: PackageSet) -> dict[str, str]:
    """Versions by package; empty while none were written down."""
    path = lock_file(packages)
    lines = path.read_text().splitlines() if path.exists() else []
    return dict(line.split(" ", 1) for line in lines if line)


def write_preferences(packages: PackageSet, versions: dict[str, str]) -> str:
    """What apt is to prefer: the versions written down, where it finds them, else those of the set."""
    stanzas = [f"Package: {name}\nPin: version {version}\nPin-Priority: 1001" for name, version in versions.items()]
    if packages is PackageSet.BASE:
        # The same kernel in both sets: a new kernel changes every module, which the security updates of a week do not.
        kernel = f"Package: linux-image-*\nPin: release n={SECURITY}\nPin-Priority: 990"
        stanzas += [kernel, f"Package: *\nPin: release n={SECURITY}\nPin-Priority: -1"]
    return "\n\n".join(stanzas) + "\n"


def find_sources() -> list[str]:
    """The machine's own apt sources for the suites that are needed, whatever mirror they name."""
    answer = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME)", "Created-By: Packages"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    pairs = [line.split() for line in answer.stdout.splitlines()]
    found = {codename: uri for uri, codename in pairs if codename in (SUITE, SECURITY)}
    if missing := {SUITE, SECURITY} - found.keys():
        raise TestOsError(f"apt has no source for {', '.join(sorted(missing))}; the images are built on Debian 12")
    return [f"deb {found[suite]} {suite} main" for suite in (SUITE, SECURITY)]


def _mmdebstrap(folder: Path, preferences: Path, packages: PackageSet) -> None:
    command = [
        # In a mount namespace: however it ends, what it mounts in the new root is gone, and nobody deletes through it.
        "unshare", "--mount", "mmdebstrap", *_OPTIONS, f"--include={','.join(packages.names)}",
        f'--setup-hook=mkdir -p "$1/etc/apt/preferences.d" && cp {preferences} "$1/etc/apt/preferences.d/pins.pref"',
        f"--customize-hook={_HOOK}",
        SUITE, str(folder / "root"), *find_sources(),
    ]  # fmt: skip
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C",
        "SOURCE_DATE_EPOCH": str(EPOCH_SECONDS),
        "KERNEL_PACKAGE": packages.kernel,
    }
    if shutil.which("mmdebstrap") is None:
        raise TestOsError("mmdebstrap is not installed; run tools/packages vm as root")
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=BUILD_SECONDS)
    (folder / "build.log").write_text(done.stdout + done.stderr)
    if done.returncode:
        raise TestOsError(f"mmdebstrap failed:\n{(done.stdout + done.stderr)[-2000:]}")
