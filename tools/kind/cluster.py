"""The kind cluster: made from kind-config.yaml, with the image, the releases, the chart, and machines that reported."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from careen.api.meta import GROUP, NAMESPACE
from careen.release.errors import BuildError, PublishError
from careen.sandbox.firmware import Fault
from careen.sandbox.machine import INSTALL
from careen.sandbox.releases import Repository
from ociimage.settings import REFERENCE, TOP, ImageError

NAME = "careen"
FOLDER = Path("/var/tmp/careen")  # noqa: S108 - kind-config.yaml mounts it
KUBECONFIG = TOP / "dist/kind.kubeconfig"
WORKERS = ("worker-a", "worker-b", "worker-c")
BROKEN = "2.1.0"
HERE = Path(__file__).parent
NEEDED = {
    "docker": "kind runs its nodes as containers",
    "kind": "it makes the cluster",
    "kubectl": "it talks to the cluster",
    "helm": "it installs the chart",
}
_SECONDS = 900.0
_READY_SECONDS = 300.0


class KindError(Exception):
    """The cluster can't be made or used; the message is one sentence for people."""


def install_all(archive: Path | None) -> None:
    """Make the cluster unless it is there, load the image, publish releases, install the chart, wait for machines."""
    check_programs()
    if _read("docker", "info", check=False).returncode:
        raise KindError("docker does not answer: start its daemon, or join the group docker")
    prepare_folder(FOLDER)
    KUBECONFIG.parent.mkdir(exist_ok=True)
    if NAME not in _read("kind", "get", "clusters").stdout.split():
        _tell("making the cluster")
        _run("kind", "create", "cluster", f"--config={TOP / 'kind-config.yaml'}", "--wait=180s")
    _run("kind", "export", "kubeconfig", f"--name={NAME}", f"--kubeconfig={KUBECONFIG}")
    _load_image(archive)
    for node in list_workers():
        _add_boot_unit(node)
    _tell("installing the chart")
    releases = (HERE / "files/releases.yaml").read_text().replace("IMAGE", REFERENCE)
    _run("kubectl", "apply", "--filename=-", stdin=releases)
    _run(
        "helm", "upgrade", "--install", "careen", str(TOP / "charts/careen"), f"--namespace={NAMESPACE}",
        "--create-namespace", f"--values={TOP / 'tests/e2e/values-kind.yaml'}",
        f"--set-file=trust.root={FOLDER / 'releases/root.json'}", "--wait", "--timeout=5m",
    )  # fmt: skip
    _run("kubectl", "rollout", "status", "deployment/releases", "--namespace=careen-demo", "--timeout=3m")
    _wait(_all_reported, f"{len(WORKERS)} machines report")
    _tell(f"ready: export KUBECONFIG={KUBECONFIG}")


def follow_update() -> None:
    """Apply the example policy and show how the machines go, until the policy is Complete."""
    _run("kubectl", "apply", f"--filename={HERE / 'files/policy.yaml'}")
    last = ""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        shown = _read(sys.executable, "-m", "careen", "status").stdout
        if shown != last:
            print(shown, flush=True)
            last = shown
        path = '{.status.conditions[?(@.type=="Complete")].status}'
        if _read("kubectl", "get", "updatepolicy", "os", f"--output=jsonpath={path}").stdout == "True":
            _tell(f"all machines run 2.0.0; set the policy's version to {BROKEN} to see one come back from a panic")
            return
        time.sleep(1)
    raise KindError(f"the policy is not Complete after {_SECONDS:g} s: see kubectl describe updatepolicy os")


def remove_all() -> None:
    """Delete the cluster and the folder of its machines."""
    check_programs("kind", "docker")
    if NAME in _read("kind", "get", "clusters").stdout.split():
        for node in list_workers():
            # The machines' files are root's, and only a container is sure to be root here.
            _read("docker", "exec", node, "sh", "-c", "rm -rf /var/lib/careen/*", check=False)
        _run("kind", "delete", "cluster", f"--name={NAME}")
    shutil.rmtree(FOLDER, ignore_errors=True)
    KUBECONFIG.unlink(missing_ok=True)


def check_programs(*names: str) -> None:
    """KindError that names the first program that is not on the PATH; default all that are needed."""
    for name in names or NEEDED:
        if shutil.which(name) is None:
            raise KindError(f"{name} is not on the PATH ({NEEDED[name]}); install it, or run `make demo` instead")


def prepare_folder(folder: Path) -> Repository:
    """Publish the releases, and lay 1.0.0 into each worker's folder, to be installed at its first start."""
    try:
        repository = Repository.create(folder / "releases")
        for version, fault in (("1.0.0", None), ("2.0.0", None), (BROKEN, Fault.PANIC)):
            if version not in repository.releases:
                repository.publish(version, fault)
    except (BuildError, PublishError, OSError) as error:
        raise KindError(f"the releases can't be built in {folder}: {error}") from error
    # The server's container has a user of its own.
    for path in (repository.public, *repository.public.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    for name in WORKERS:
        worker = folder / name
        worker.mkdir(exist_ok=True)
        # The agent's pod is root without the right to pass over permissions, and this folder is the caller's.
        worker.chmod(0o777)
        if not (worker / INSTALL).exists():
            shutil.copytree(folder / "releases/builds/1.0.0", worker / INSTALL)
        for path in (worker / INSTALL, *(worker / INSTALL).iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o644)
    return repository


def list_workers() -> list[str]:
    """Names of the workers, which are those of their containers."""
    selector = f"--selector={GROUP}/machine=true"
    return _read("kubectl", "get", "nodes", selector, "--output=name").stdout.replace("node/", "").split()


def _load_image(archive: Path | None) -> None:
    if archive is None and "VERSION_CODENAME=bookworm" in Path("/etc/os-release").read_text():
        from ociimage.build import build_image

        try:
            archive = build_image().archive
        except ImageError as error:
            raise KindError(f"the image can't be built: {error}") from error
    _tell("loading the image")
    if archive is not None:
        _run("kind", "load", "image-archive", str(archive), f"--name={NAME}")
        return
    # Debian's packages are not those of this system: the Dockerfile brings its own.
    _run("docker", "build", f"--tag={REFERENCE}", str(TOP))
    _run("kind", "load", "docker-image", REFERENCE, f"--name={NAME}")


def _add_boot_unit(node: str) -> None:
    files, units = HERE / "files", "/etc/systemd/system"
    _run("docker", "cp", str(files / "careen-boot"), f"{node}:/usr/local/lib/careen-boot")
    for unit in ("careen-boot.path", "careen-boot.service"):
        _run("docker", "cp", str(files / unit), f"{node}:{units}/{unit}")
    _run("docker", "exec", node, "systemctl", "daemon-reload")
    _run("docker", "exec", node, "systemctl", "enable", "--quiet", "--now", "careen-boot.path")


def _all_reported() -> bool:
    path = "{range .items[*]}{.status.bootID}{'\\n'}{end}"
    found = _read("kubectl", "get", f"nodes.{GROUP}", f"--output=jsonpath={path}", check=False).stdout.split()
    return len(found) >= len(WORKERS)


def _wait(check: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while not check():
        if time.monotonic() > deadline:
            raise KindError(f"not within {_READY_SECONDS:g} s: {what} (see kubectl -n {NAMESPACE} get pods)")
        time.sleep(1)


def _tell(text: str) -> None:
    print(f"kind: {text}", file=sys.stderr, flush=True)


def _run(*command: str, stdin: str | None = None) -> None:
    """Run a program whose output people see. Raises KindError."""
    done = subprocess.run(command, input=stdin, text=True, check=False, timeout=_SECONDS, env=_environment())
    if done.returncode:
        raise KindError(f"{' '.join(command[:3])} failed with exit code {done.returncode}")


def _read(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS, env=_environment())
    if check and done.returncode:
        raise KindError(f"{' '.join(command[:3])} failed: {done.stderr.strip()}")
    return done


def _environment() -> dict[str, str]:
    source = os.pathsep.join(filter(None, (str(TOP / "operator"), os.environ.get("PYTHONPATH"))))
    return os.environ | {"KUBECONFIG": str(KUBECONFIG), "PYTHONPATH": source}
