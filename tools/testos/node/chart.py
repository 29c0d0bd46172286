"""Our chart in a cluster of test nodes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from careen.api.meta import NAMESPACE
from careen.sandbox.binaries import ensure_binaries
from careen.sandbox.controlplane import ControlPlane
from careen.sandbox.progress import print_progress
from testos.debian import TestOsError

TOP = Path(__file__).parents[3]
CHART = TOP / "charts/careen"
RELEASE = "careen"
SECONDS = 120.0
READY_SECONDS = 240
"""How long the first install may take until the agents run: ten times what it takes alone."""
RENEW_SECONDS = 20


class Chart:
    """The chart under one release name. Raises TestOsError for what helm refuses."""

    def __init__(self, plane: ControlPlane, folder: Path, *, trust_root: str) -> None:
        """folder: for the values. trust_root: where the nodes have it, without the first slash."""
        self._plane = plane
        self._folder = folder
        self._trust_root = trust_root

    def install(self, image: str) -> None:
        """Install it and wait until it is ready: the default lock can only be made once its kind is served."""
        self._apply(image, "--wait", f"--timeout={READY_SECONDS}s")

    def upgrade(self, image: str) -> None:
        """Upgrade it to another image, and wait for nothing: a node that is in flight takes its time."""
        self._apply(image)

    def _apply(self, image: str, *options: str) -> None:
        values = self._folder / "values.json"
        values.write_text(json.dumps(self._describe(image)))
        self._helm("upgrade", RELEASE, str(CHART), "--install", "--create-namespace", "--values", str(values), *options)

    def _describe(self, image: str) -> dict[str, Any]:
        repository, _, tag = image.rpartition(":")
        return {
            "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
            # The nodes have no network for pods: whoever uses the chart's account runs beside the cluster.
            "operator": {"replicas": 0},
            "agent": {"trustRoot": f"/{self._trust_root}", "extraArgs": [f"--renew-seconds={RENEW_SECONDS}"]},
        }

    def _helm(self, *arguments: str) -> None:
        program = ensure_binaries(["helm"], print_progress)["helm"]
        command = [str(program), "--kubeconfig", str(self._plane.kubeconfig), "--namespace", NAMESPACE, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=READY_SECONDS + SECONDS, check=False)
        if done.returncode:
            raise TestOsError(f"helm {arguments[0]} failed:\n{done.stderr.strip()}")
