"""A shell beside a sandbox, for the commands of the documents."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from careen.sandbox.releases import Repository
from careen.sandbox.running import choose_running
from pages import ROOT

UP = "careen sandbox up --machines 3 --zones 3"
"""How the quick start begins."""
READY = "Ctrl-C ends it"
START_SECONDS = 180.0


@dataclass(frozen=True)
class Shell:
    """Where commands are run: beside a sandbox, with its commands on the PATH."""

    kubeconfig: Path
    folder: Path
    environment: dict[str, str]

    @property
    def repository(self) -> Repository:
        """The sandbox's releases."""
        return Repository(Path(choose_running(self.kubeconfig).repository))

    @property
    def releases(self) -> str:
        """URL of them."""
        return choose_running(self.kubeconfig).releases

    def run(self, script: str, seconds: float) -> subprocess.CompletedProcess[str]:
        """Run a script that ends at the first command that fails. TimeoutExpired after the deadline."""
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=seconds,
        )


@contextmanager
def open_shell(folder: Path) -> Iterator[Shell]:
    """Start a sandbox as the quick start says, and end it as it says. folder: an empty one, for programs and logs."""
    programs = folder / "bin"
    programs.mkdir()
    for name in ("careen", "kubectl-careen"):
        program = programs / name
        program.write_text(f"#!{sys.executable}\nfrom careen.cli.main import main\n\nmain()\n")
        program.chmod(0o755)
    ours = ("KUBECONFIG", "CAREEN_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment = kept | {"PATH": f"{programs}:{kept['PATH']}", "PYTHONPATH": str(ROOT / "operator")}
    with (folder / "sandbox.log").open("w") as log:
        sandbox = subprocess.Popen(
            UP.split(),
            env=environment,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
    try:
        yield Shell(_wait_ready(sandbox, folder / "sandbox.log"), folder, environment)
    finally:
        sandbox.send_signal(signal.SIGINT)
        sandbox.wait(30)


def _wait_ready(sandbox: subprocess.Popen[str], log: Path) -> Path:
    """Read what it says until it is ready; its kubeconfig, from the command that it tells people."""
    assert sandbox.stdout is not None
    timer = threading.Timer(START_SECONDS, sandbox.kill)
    timer.start()
    said = []
    for line in sandbox.stdout:
        said.append(line)
        if READY in line:
            break
    timer.cancel()
    told = [line for line in said if "careen sandbox env --kubeconfig" in line]
    assert told, f"it did not get ready: {''.join(said)}{log.read_text()}"
    return Path(told[0].split("--kubeconfig ")[1].rstrip('")\n'))
