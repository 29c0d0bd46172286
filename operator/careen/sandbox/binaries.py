"""Find or build the programs of the control plane, once for each version, in a folder of the user's cache."""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

KUBERNETES_VERSION = "v1.37.2"
HELM_VERSION = "v4.3.1"


class SandboxError(Exception):
    """Something the sandbox needs is missing or did not work; the message says what to do about it."""


@dataclass(frozen=True)
class Program:
    """One program and the Go package that it is built from."""

    name: str
    upstream: str
    package: str
    ldflags: str


@dataclass(frozen=True)
class BuildProgress:
    """How far the build of one program is."""

    name: str
    seconds: float
    """Time since the build of this program began, in seconds."""
    packages: int
    """Go packages compiled so far; those found in Go's own build cache do not count."""
    done: bool


Report = Callable[[BuildProgress], None]


def _version_stamps() -> str:
    """Linker flags that give the Kubernetes programs their version.

    Without them the server calls itself v0.0.0-master, and clients that check the skew refuse it.
    """
    major, minor, _ = KUBERNETES_VERSION.removeprefix("v").split(".")
    values = {
        "gitVersion": KUBERNETES_VERSION,
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(f"-X {package}.{key}={value}" for package in packages for key, value in values.items())


def _programs() -> dict[str, Program]:
    stamped = f"-s -w {_version_stamps()}"
    kubernetes = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
    listed = [Program(name, "kubernetes", f"k8s.io/kubernetes/cmd/{name}", stamped) for name in kubernetes]
    listed.append(Program("kubelet", "kubelet", "k8s.io/kubernetes/cmd/kubelet", stamped))
    listed.append(Program("etcd", "etcd", "go.etcd.io/etcd/server/v3", "-s -w"))
    listed.append(Program("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok", "-s -w"))
    # For the chart's tests: a sandbox needs none.
    stamp = f"-X helm.sh/helm/v4/internal/version.version={HELM_VERSION}"
    listed.append(Program("helm", "helm", "helm.sh/helm/v4/cmd/helm", f"-s -w {stamp}"))
    return {program.name: program for program in listed}


PROGRAMS = _programs()


def cache_folder() -> Path:
    """The folder for built programs and logs: $CAREEN_CACHE, else careen in the user's cache folder."""
    if named := os.environ.get("CAREEN_CACHE"):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "careen"


def ensure_binaries(names: Iterable[str], progress: Report) -> dict[str, Path]:
    """Return the path of each named program, building those that the cache lacks.

    `progress` is called about once a second during a build. A second caller waits for the first one's
    build instead of repeating it. Raises SandboxError when Go is missing or too old, or when a build
    fails; the message names the log.
    """
    wanted = {name: _cached_path(PROGRAMS[name]) for name in names}
    if all(path.exists() for path in wanted.values()):
        return wanted
    with _only_builder():
        for name, path in wanted.items():
            if not path.exists():
                _build(PROGRAMS[name], path, progress)
    return wanted


@contextmanager
def _only_builder() -> Iterator[None]:
    """Hold the lock file of the cache; the kernel frees it however this process ends."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / "build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _module_files(upstream: str) -> dict[str, bytes]:
    folder = resources.files("careen.sandbox") / "tools" / upstream
    return {name: (folder / name).read_bytes() for name in ("go.mod", "go.sum")}


def _cached_path(program: Program) -> Path:
    """Where the cache keeps this program: the folder's name changes with all that goes into the build."""
    digest = hashlib.sha256(program.ldflags.encode())
    for content in _module_files(program.upstream).values():
        digest.update(content)
    return cache_folder() / "bin" / f"{program.upstream}-{digest.hexdigest()[:16]}" / program.name


def _build(program: Program, destination: Path, progress: Report) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    # The module files are copied because the installed package may be read-only or inside a workspace
    # of the user, whose go.work would take the place of our go.sum.
    module = destination.parent / "module"
    module.mkdir(exist_ok=True)
    for name, content in _module_files(program.upstream).items():
        (module / name).write_bytes(content)
    go = _find_go(module)
    unfinished = destination.with_name(f".{program.name}.{os.getpid()}")
    command = [go, "build", "-v", "-mod=readonly", "-trimpath", "-buildvcs=false"]
    command += [f"-ldflags={program.ldflags}", "-o", str(unfinished), program.package]
    log = destination.parent / f"{program.name}.log"
    try:
        code, last_lines = _run_build(program.name, command, module, log, progress)
        if code != 0:
            raise SandboxError(f"building {program.name} failed (log: {log}):\n{last_lines}")
        unfinished.rename(destination)
    finally:
        unfinished.unlink(missing_ok=True)


def _run_build(name: str, command: list[str], module: Path, log: Path, progress: Report) -> tuple[int, str]:
    """Run the build and report while it runs; returns its exit code and the end of its output."""
    environment = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"}
    started, reported, packages = time.monotonic(), 0.0, 0
    tail: deque[str] = deque(maxlen=20)
    progress(BuildProgress(name, 0.0, 0, done=False))
    with (
        log.open("w") as output,
        subprocess.Popen(
            command, cwd=module, env=environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process,
    ):  # fmt: skip
        assert process.stdout is not None
        try:
            for line in process.stdout:
                output.write(line)
                tail.append(line)
                # `go build -v` prints one import path a line; errors and downloads contain spaces.
                packages += " " not in line.strip()
                if time.monotonic() - reported >= 1.0:
                    reported = time.monotonic()
                    progress(BuildProgress(name, reported - started, packages, done=False))
        except BaseException:
            process.kill()
            raise
    progress(BuildProgress(name, time.monotonic() - started, packages, done=True))
    return process.returncode, "".join(tail)


def _find_go(module: Path) -> str:
    """Return the go command; raises SandboxError unless it satisfies the module's go line."""
    needed = re.search(r"^go (\d+)\.(\d+)", (module / "go.mod").read_text(), re.MULTILINE)
    assert needed is not None
    advice = (
        f"install Go {needed[1]}.{needed[2]} or newer to build the control plane, "
        "or name an existing cluster by CAREEN_KUBECONFIG or --kubeconfig"
    )
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if go is None:
        raise SandboxError(f"Go was not found: {advice}")
    # Asked inside the module, a go command that may fetch newer toolchains answers with the one it
    # would use; one that may not, or that is too old to read the file, fails.
    answer = subprocess.run([go, "env", "GOVERSION"], cwd=module, capture_output=True, text=True, check=False)
    found = re.match(r"go(\d+)\.(\d+)", answer.stdout)
    if found is None or (int(found[1]), int(found[2])) < (int(needed[1]), int(needed[2])):
        version = subprocess.run([go, "version"], cwd="/", capture_output=True, text=True, check=False)
        raise SandboxError(f"{go} is too old ({version.stdout.strip() or 'no version'}): {advice}")
    return go
