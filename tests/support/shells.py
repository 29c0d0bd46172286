"""A shell beside a sandbox, for the commands of the documents."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from careen.sandbox.releases import Repository
from careen.sandbox.running import choose_running
from pages import ROOT

UP = "careen sandbox up --machines 3 --zones 3"
"""How the quick start begins."""
READY = "Ctrl-C ends it"
START_SECONDS = 300.0


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

    def run(self, script: str, seconds: float) -> tuple[int, str]:
        """As run_script, beside the sandbox."""
        return run_script(script, self.folder, self.environment, seconds)


def run_script(script: str, folder: Path, environment: dict[str, str], seconds: float) -> tuple[int, str]:
    """Run a script that ends at the first command that fails; exit code and output. 124: it did not end in time."""
    command = ["bash", "-euo", "pipefail", "-c", script]
    log = folder / "script.log"
    with log.open("w") as output:
        # In a session of its own: what the script waits for must end with it.
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = 124
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return code, log.read_text()


def make_programs(folder: Path) -> dict[str, str]:
    """Put our programs into a new folder; an environment that has them on its PATH and knows of no cluster."""
    folder.mkdir()
    for name in ("careen", "kubectl-careen"):
        program = folder / name
        program.write_text(f"#!{sys.executable}\nfrom careen.cli.main import main\n\nmain()\n")
        program.chmod(0o755)
    ours = ("KUBECONFIG", "CAREEN_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {"PATH": f"{folder}:{kept['PATH']}", "PYTHONPATH": str(ROOT / "operator")}


@contextmanager
def open_shell(folder: Path) -> Iterator[Shell]:
    """Start a sandbox as the quick start says, and end it as it says. folder: an empty one, for programs and logs."""
    environment = make_programs(folder / "bin")
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
