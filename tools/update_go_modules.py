"""Regenerate the go.mod and go.sum files of the programs that the sandbox and the tests build.

Run it after changing a version in UPSTREAMS: `python tools/update_go_modules.py [NAME...]`.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parent.parent / "operator" / "careen" / "sandbox" / "tools"


@dataclass(frozen=True)
class Upstream:
    """One Go module whose programs the sandbox or the tests build; it gets a go.mod of its own.

    A shared go.mod would let each upstream's requirements lift the dependencies of the others away from
    what they were released with.
    """

    module: str
    version: str
    packages: tuple[str, ...]


UPSTREAMS = {
    "etcd": Upstream("go.etcd.io/etcd/server/v3", "v3.6.14", ("go.etcd.io/etcd/server/v3",)),
    "kubernetes": Upstream(
        "k8s.io/kubernetes",
        "v1.37.2",
        tuple(
            f"k8s.io/kubernetes/cmd/{name}"
            for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
        ),
    ),
    # Apart from the control plane, which needs fewer modules, and whose programs a new one here must not build anew.
    "kubelet": Upstream("k8s.io/kubernetes", "v1.37.2", ("k8s.io/kubernetes/cmd/kubelet",)),
    "helm": Upstream("helm.sh/helm/v4", "v4.3.1", ("helm.sh/helm/v4/cmd/helm",)),
    "kwok": Upstream("sigs.k8s.io/kwok", "v0.8.0", ("sigs.k8s.io/kwok/cmd/kwok",)),
}


def run(folder: Path, *arguments: str) -> str:
    """Run a go command in `folder` and return what it printed; raises CalledProcessError when it fails."""
    return subprocess.run(["go", *arguments], cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout


def staging_replacements(own: dict[str, Any], version: str) -> list[str]:
    """Pin the requirements that exist only as folders of the module's repository to published versions.

    kubernetes requires its staging modules as v0.0.0 and replaces them by such folders. Replacements of
    a dependency do not count in the main module, so it has to name the published ones.
    """
    published = "v0" + version.removeprefix("v1")
    unpublished = [entry["Path"] for entry in own["Require"] if entry["Version"] == "v0.0.0"]
    return [f"-replace={path}={path}@{published}" for path in unpublished]


def regenerate(name: str, upstream: Upstream) -> None:
    """Write go.mod and go.sum of one upstream."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run(folder, "mod", "init", f"careen.dev/sandbox/{name}")
        download = json.loads(run(folder, "mod", "download", "-json", f"{upstream.module}@{upstream.version}"))
        own = json.loads(run(folder, "mod", "edit", "-json", download["GoMod"]))
        run(folder, "mod", "edit", f"-go={own['Go']}", *staging_replacements(own, upstream.version))
        run(folder, "get", "-tool", *(f"{package}@{upstream.version}" for package in upstream.packages))
        destination = TARGET / name
        destination.mkdir(parents=True, exist_ok=True)
        for file in ("go.mod", "go.sum"):
            shutil.copyfile(folder / file, destination / file)


def main() -> None:
    """Regenerate the upstreams named on the command line, or all."""
    for name in sys.argv[1:] or UPSTREAMS:
        print(f"{name} {UPSTREAMS[name].version}", flush=True)
        regenerate(name, UPSTREAMS[name])


if __name__ == "__main__":
    main()
