"""The /usr of a node: that of the test OS, with what containerd and the kubelet need, and without Debian's network."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import careen.agent.linux
from careen.sandbox.binaries import ensure_binaries
from careen.sandbox.progress import print_progress
from testos.cache import digest_inputs, keep
from testos.debian import PackageSet
from testos.kernel import read_modules
from testos.tree import UNITS, Flavor, Tree, build_tree, enable
from testos.variant import TRIAL_TIMER, copy_tree

FILES = Path(__file__).parent / "files"
MODULES = ("nf_tables", "nft_chain_nat", "nft_nat", "nft_ct", "nf_conntrack")
"""What the rule needs that leads the service's address to the API server."""
_NOT_NEEDED = (
    "bin/containerd-shim", "bin/containerd-shim-runc-v1", "bin/containerd-stress", "sbin/runc", "bin/runc",
    "lib/systemd/system/multi-user.target.wants/systemd-networkd.service",
    "share/careen/etc/systemd/network/10-machine.network",
)  # fmt: skip
_PLUGIN = "loopback"
"""The one network plugin that is used: all pods are in the host's network."""
_TRIAL_FILES = {
    f"{UNITS}/{TRIAL_TIMER}": TRIAL_TIMER,
    f"{UNITS}/careen-trial.service": "careen-trial.service",
    "lib/careen/trial-check": "trial-check",
}
"""The deadline of a trial boot is the image's, wherever the agent runs."""
_SCRIPTS = ("identity", "images", "disks")
_UNITS = ("containerd.service", "testos-identity.service", "testos-images.service", "kubelet.service")
_SECONDS = 60.0


def build_node_tree() -> Tree:
    """The /usr of a node without a version, from the cache if it is there."""
    base = build_tree(PackageSet.NODE, Flavor.SMALL)
    kubelet = ensure_binaries(["kubelet"], print_progress)["kubelet"]
    trial = Path(careen.agent.linux.__file__).parent / "units"
    key = digest_inputs(base.key, kubelet.parent.name, FILES, trial, Path(__file__))

    def build(folder: Path) -> None:
        work = folder / "work"
        usr = work / "usr"
        work.mkdir()
        copy_tree(base.usr, usr)
        for name in _NOT_NEEDED:
            (usr / name).unlink(missing_ok=True)
        for plugin in (usr / "lib/cni").iterdir():
            if plugin.name != _PLUGIN:
                plugin.unlink()
        _add_modules(base.root, work)
        _install(kubelet, usr / "bin/kubelet", 0o755)
        for place, name in _TRIAL_FILES.items():
            _install(trial / name, usr / place, 0o644 if "." in name else 0o755)
        _write_settings(usr)
        usr.rename(folder / "usr")
        shutil.rmtree(work)

    return Tree(keep("tree-node", key, build) / "usr", key, base.root)


def _add_modules(root: Path, work: Path) -> None:
    modules = read_modules(root)
    kept = work / "usr/lib/modules" / modules.folder.name
    for path in modules.find(MODULES):
        _install(modules.folder / path, kept / path)
    # For the tree's own depmod, which the host need not have.
    for name in ("bin", "sbin", "lib", "lib64"):
        (work / name).symlink_to(f"usr/{name}")
    command = ["chroot", str(work), "depmod", modules.folder.name]
    subprocess.run(command, check=True, timeout=_SECONDS, capture_output=True)


def _write_settings(usr: Path) -> None:
    for source in sorted((FILES / "etc").rglob("*")):
        if source.is_file():
            _install(source, usr / "share/careen/etc" / source.relative_to(FILES / "etc"))
    for name in _SCRIPTS:
        _install(FILES / f"{name}.sh", usr / "lib/testos" / name, 0o755)
    for unit in sorted((FILES / "units").iterdir()):
        _install(unit, usr / UNITS / unit.name)
    for name in _UNITS:
        enable(usr, name, "multi-user.target")
    enable(usr, TRIAL_TIMER, "sysinit.target")


def _install(source: Path, target: Path, mode: int = 0o644) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # What is there may be shared with the tree of other machines.
    target.unlink(missing_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)
