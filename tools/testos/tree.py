"""The /usr of the test OS, made from a Debian root tree: everything else of the system can be made again from it."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from .cache import digest_inputs, keep
from .debian import HERE, PackageSet, build_root
from .kernel import read_modules

FILES = HERE / "files"
UNITS = "lib/systemd/system"
PRODUCT = "testos"
MODULES = (
    "virtio", "virtio_pci", "virtio_blk", "virtio_net", "virtio_rng", "virtio_console", "dm_mod", "dm_verity",
    "dm_flakey", "overlay", "erofs", "ext4", "loop", "softdog", "i6300esb", "qemu_fw_cfg", "vfat", "fat",
    "nls_ascii", "nls_cp437", "efivarfs", "autofs4",
)  # fmt: skip
_NOT_NEEDED = (
    "share/perl", "share/perl5", "lib/x86_64-linux-gnu/perl", "lib/x86_64-linux-gnu/perl-base", "bin/perl*",
    "lib/x86_64-linux-gnu/libperl*", "lib/udev/hwdb*", "lib/apt", "bin/apt*", "lib/x86_64-linux-gnu/libapt*",
    "lib/x86_64-linux-gnu/gconv", "share/zoneinfo", "share/bash-completion", "share/zsh", "share/common-licenses",
    "share/keyrings", "lib/python3.11/test", "lib/python3.11/idlelib", "lib/python3.11/lib2to3",
    "lib/python3.11/pydoc_data", "lib/python3.11/distutils", "lib/valgrind", "lib/systemd/boot",
    "lib/x86_64-linux-gnu/libdb-5*", "lib/x86_64-linux-gnu/libsqlite3*", "lib/xen-4.17", "lib/initramfs-tools",
    "share/initramfs-tools", "lib/x86_64-linux-gnu/libstdc++*", "bin/lto-dump*", "games", "include", "src", "local",
    "share/doc", "share/man", "share/info", "share/locale", "share/lintian",
)  # fmt: skip
"""What no test needs of a small image; each megabyte costs time in every test under software emulation."""
_GENERATORS = ("systemd-debug-generator",)
_MASKED = (
    "systemd-pstore.service", "systemd-logind.service", "systemd-binfmt.service", "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service", "systemd-timesyncd.service", "systemd-firstboot.service",
    "systemd-networkd-wait-online.service", "systemd-network-generator.service",
    "systemd-machine-id-commit.service", "systemd-sysusers.service", "systemd-pcrphase.service",
    "systemd-pcrphase-sysinit.service", "systemd-hwdb-update.service", "e2scrub_reap.service", "e2scrub_all.timer",
    "fstrim.timer", "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer",
    "systemd-tmpfiles-clean.timer", "getty.target", "getty-static.service", "systemd-initctl.socket",
    "systemd-ask-password-wall.path", "systemd-ask-password-console.path", "proc-sys-fs-binfmt_misc.automount",
    "remote-fs.target", "modprobe@drm.service", "modprobe@fuse.service", "modprobe@configfs.service",
    "modprobe@efi_pstore.service", "sys-fs-fuse-connections.mount", "sys-kernel-config.mount",
    "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "dev-hugepages.mount", "dev-mqueue.mount",
    "kexec.service", "kexec-load.service", "systemd-resolved.service", "systemd-user-sessions.service",
    "systemd-journald-audit.socket",
)  # fmt: skip
_SECONDS = 300.0


class Flavor(StrEnum):
    """How much of the packages goes into the image."""

    SMALL = "small"
    """What a machine of the tests needs."""
    FULL = "full"
    """All of it but documentation, as a real system has it: for figures on real updates."""
    NODE = "node"
    """The small one with containerd and kubelet, as node/tree.py makes it."""


@dataclass(frozen=True)
class Tree:
    """A built tree."""

    usr: Path
    """The tree; it becomes /usr."""
    key: str
    """Changes with everything that went into the tree."""
    root: Path
    """The root tree that it was made from."""


def build_tree(packages: PackageSet, flavor: Flavor) -> Tree:
    """The /usr of the OS without a version, from the cache if it is there."""
    made = build_root(packages)
    key = digest_inputs(made.name, FILES, Path(__file__), HERE / "kernel.py", flavor)

    def build(folder: Path) -> None:
        work = folder / "work"
        _run("cp", "-a", str(made / "root"), str(work))
        _shape(work, flavor)
        (work / "usr").rename(folder / "usr")
        shutil.rmtree(work)

    folder = keep(f"tree-{packages}-{flavor}", key, build)
    return Tree(folder / "usr", key, made / "root")


def _shape(root: Path, flavor: Flavor) -> None:
    usr = root / "usr"
    if flavor is Flavor.SMALL:
        for pattern in _NOT_NEEDED:
            for path in usr.glob(pattern):
                _remove(path)
        _trim_modules(root)
    etc, var = root / "etc", root / "var"
    _write_settings(usr, etc)
    for pattern in ("cache/*", "lib/apt/*", "log/*", "backups/*", "lib/dpkg", "tmp/*"):
        for path in var.glob(pattern):
            _remove(path)
    # Links of the kind /var/run -> /run stay; the caches and logs are made anew by whoever needs them.
    shutil.copytree(etc, usr / "share/careen/etc", symlinks=True)
    shutil.copytree(var, usr / "share/factory/var", symlinks=True)


def _trim_modules(root: Path) -> None:
    modules = read_modules(root)
    for path in modules.needs.keys() - set(modules.find(MODULES)):
        (modules.folder / path).unlink()
    for directory in sorted((modules.folder / "kernel").rglob("*/"), reverse=True):
        if not any(directory.iterdir()):
            directory.rmdir()
    _run("chroot", str(root), "depmod", modules.folder.name)


def _write_settings(usr: Path, etc: Path) -> None:
    for name in ("machine-id", "hostname", "resolv.conf", "fstab", ".pwd.lock"):
        (etc / name).unlink(missing_ok=True)
    (etc / "fstab").touch()
    (etc / "hostname").write_text(f"{PRODUCT}\n")
    (etc / "resolv.conf").write_text("nameserver 10.0.2.3\n")
    _remove(etc / "apt/preferences.d/pins.pref")
    # Debian's script would load the old slot's kernel behind the agent's back at a firmware reboot.
    kexec = etc / "default/kexec"
    kexec.write_text(kexec.read_text().replace("LOAD_KEXEC=true", "LOAD_KEXEC=false"))
    for source in sorted((FILES / "etc").rglob("*")):
        if source.is_file():
            target = etc / source.relative_to(FILES / "etc")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    units = etc / "systemd/system"
    for name in _MASKED:
        _remove(units / name)
        (units / name).symlink_to("/dev/null")
    (units / "default.target").unlink(missing_ok=True)
    (units / "default.target").symlink_to(f"/usr/{UNITS}/multi-user.target")
    for path in (usr / "lib/systemd/system-generators").iterdir():
        if path.name not in _GENERATORS:
            path.unlink()
    (usr / "lib/testos").mkdir()
    for name in ("hello", "fault"):
        _install(FILES / f"{name}.sh", usr / "lib/testos" / name, 0o755)
    for unit in sorted((FILES / "units").iterdir()):
        _install(unit, usr / UNITS / unit.name)
    enable(usr, "testos-hello.service", "multi-user.target")
    enable(usr, "testos-fault.service", "sysinit.target")
    enable(usr, "systemd-networkd.service", "multi-user.target")


def enable(usr: Path, unit: str, target: str) -> None:
    """Make a unit of the tree start with a target."""
    link = usr / UNITS / f"{target}.wants" / unit
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(f"../{unit}")


def _install(source: Path, target: Path, mode: int = 0o644) -> None:
    shutil.copyfile(source, target)
    target.chmod(mode)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=_SECONDS, capture_output=True)
