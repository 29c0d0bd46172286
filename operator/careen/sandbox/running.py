"""What a running sandbox tells other processes about itself, so that a release can be published into it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from careen.sandbox.binaries import SandboxError
from careen.sandbox.releases import Repository
from careen.sandbox.workspace import base_folder

NAME = "sandbox.json"


@dataclass(frozen=True)
class Running:
    """One sandbox that is up."""

    kubeconfig: str
    releases: str
    """URL of its release repository."""
    repository: str
    """Folder of that repository."""
    kubectl: str
    """A kubectl that suits its API server."""
    pid: int
    """Process that holds it up."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file. Raises OSError, ValueError, TypeError."""
        return cls(**json.loads(path.read_text()))

    def environment(self) -> dict[str, str]:
        """What a shell needs to talk to it; PATH is only what goes before the shell's own."""
        repository = Repository(Path(self.repository))
        return {
            "KUBECONFIG": self.kubeconfig,
            "PATH": str(Path(self.kubectl).parent),
            "CAREEN_RELEASES": self.releases,
            "CAREEN_TRUST_ROOT": str(repository.trust_root),
            "CAREEN_RELEASE_CACHE": str(repository.cache),
        }

    def save(self, folder: Path) -> None:
        """Write the file into the sandbox's folder, which vanishes with the sandbox."""
        (folder / NAME).write_text(json.dumps(asdict(self)))


def find_running() -> list[Running]:
    """The sandboxes of this user that are up."""
    found = []
    for path in sorted(base_folder().glob(f"plane-*/**/{NAME}")):
        try:
            running = Running.load(path)
        except (OSError, ValueError, TypeError):
            continue  # It is being written, or on its way down.
        if Path(f"/proc/{running.pid}").exists():
            found.append(running)
    return found


def choose_running(kubeconfig: Path | None = None) -> Running:
    """The one sandbox that is up, or the one with this kubeconfig. SandboxError when there is none, or a choice.

    Of several, the one that the environment is set up for by `careen sandbox env` is no choice.
    """
    found = find_running()
    if kubeconfig is None and len(found) > 1:
        found = [each for each in found if each.kubeconfig == os.environ.get("KUBECONFIG")] or found
    if kubeconfig is not None:
        found = [each for each in found if Path(each.kubeconfig) == kubeconfig.resolve()]
    if len(found) == 1:
        return found[0]
    if not found:
        which = f"no sandbox with the kubeconfig {kubeconfig}" if kubeconfig is not None else "no sandbox"
        raise SandboxError(f"{which} is up: start one by `careen sandbox up`")
    names = ", ".join(each.kubeconfig for each in found)
    raise SandboxError(f"{len(found)} sandboxes are up: name one by --kubeconfig, one of {names}")
