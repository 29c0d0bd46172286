"""What the operator is started with. Limits of updates live in the objects, never here."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from careen.api.meta import NAMESPACE
from careen.core.silence import SILENCE_SECONDS
from careen.core.snapshot import Requirement

INTERVAL_SECONDS = 300.0


def default_cache() -> Path:
    """The folder for signed metadata where none is given: below XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "careen" / "metadata"


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one operator process."""

    identity: str
    """Name of this process in the leader's Lease; unique to the process, such as the pod's name."""
    kubeconfig: Path | None = None
    """kubeconfig file; None: KUBECONFIG, the pod's service account, or ~/.kube/config."""
    context: str | None = None
    """Context of the kubeconfig; None: its current one."""
    namespace: str = NAMESPACE
    """Namespace of the install: Leases of the leader and of the agents, and the cluster-wide switch."""
    node_selector: tuple[Requirement, ...] = field(default=())
    """Core Nodes that are given a careen Node; empty: all."""
    operator_node: str | None = None
    """Machine that this process runs on; it is updated last."""
    lease_seconds: float = 15.0
    """Seconds for which a silent leader keeps standbys out; at least 1."""
    silence_seconds: float = SILENCE_SECONDS
    """Seconds without a change of its Lease after which an agent counts as silent."""
    unit_grace_seconds: float = 60.0
    """Seconds that a machine may be silent before its units are put elsewhere; at least 0."""
    unit_rebalance: int = 0
    """How many units may be on the move at once only to even out the load; 0 moves none."""
    trust_root: Path | None = None
    """File with the trusted root.json of the release repositories; None: no release can be checked."""
    release_cache: Path = field(default_factory=default_cache)
    """Folder for signed metadata of release repositories."""
    resolve_seconds: float = INTERVAL_SECONDS
    """Seconds between two lookups of each policy's release; at least 1."""
    metrics_address: str = "127.0.0.1"
    """Address that metrics are served on."""
    metrics_port: int | None = None
    """Port that metrics are served on; 0 takes any free one, None serves none."""
    node_metrics: bool = False
    """Whether each machine has series of its own; at thousands of machines they are many."""
    probe_address: str | None = None
    """host:port of the probes /healthz and /readyz; None serves none."""
