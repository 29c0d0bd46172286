"""A cluster that somebody else runs, in the place of a control plane of our own."""

import shutil
from importlib import resources
from pathlib import Path
from typing import Self

from careen.sandbox import components
from careen.sandbox.binaries import Report, SandboxError, ensure_binaries
from careen.sandbox.cluster import Cluster, current_context
from careen.sandbox.processes import Child, kill, spawn
from careen.sandbox.progress import print_progress
from careen.sandbox.workspace import Workspace

SAFE_CONTEXTS = ("kind-", "careen-")


class ExistingCluster(Cluster):
    """An existing cluster such as kind's, with a kwok of ours for fake nodes, from `start` to `stop`.

    There is no audit log to read, and no certificate for any user.
    """

    audit_log = None

    def __init__(
        self, kubeconfig: Path, *, confirmed_context: str | None = None, progress: Report = print_progress
    ) -> None:
        """Use the current context of the kubeconfig.

        Raises SandboxError unless the context's name begins with one of SAFE_CONTEXTS or is
        `confirmed_context`: what runs on it deletes objects.
        """
        name = current_context(kubeconfig)
        if name != confirmed_context and not name.startswith(SAFE_CONTEXTS):
            raise SandboxError(
                f"the current context of {kubeconfig} is {name!r}: allowed are names that begin with "
                f"{' or '.join(SAFE_CONTEXTS)}, and the one that you confirm by --yes-this-context {name}"
            )
        self.kubeconfig = kubeconfig
        self._progress = progress
        self._workspace: Workspace | None = None
        self._kwok: Child | None = None

    def start(self) -> Self:
        """Start kwok for the nodes that carry its annotation, building it when it is missing.

        Raises SandboxError when kubectl or kwok can be neither built nor found on the PATH.
        """
        self._program, program = self._obtain("kubectl"), self._obtain("kwok")
        self._workspace = Workspace()
        self.logs = self._workspace.logs
        stages = self._workspace.path / "kwok.yaml"
        stages.write_bytes((resources.files("careen.sandbox") / "kwok.yaml").read_bytes())
        command = components.kwok(program, self.kubeconfig, stages, components.free_ports(1)[0])
        self._kwok = spawn("kwok", command, self._workspace.logs / "kwok.log")
        return self

    def stop(self) -> None:
        """End kwok and remove the kubeconfigs made for this cluster. Safe to call twice."""
        if self._kwok is not None:
            kill([self._kwok])
            self._kwok = None
        if self._workspace is not None:
            self._workspace.remove()
            self._workspace = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _obtain(self, name: str) -> Path:
        """Our own program where it is built or can be, since distributions ship very old ones."""
        try:
            return ensure_binaries([name], self._progress)[name]
        except SandboxError as error:
            if found := shutil.which(name):
                return Path(found)
            raise SandboxError(f"{name} is not on the PATH and can't be built: {error}") from error

    @property
    def kubectl_program(self) -> Path:
        return self._program

    @property
    def scratch(self) -> Path:
        assert self._workspace is not None, "start() comes first"
        return self._workspace.path
