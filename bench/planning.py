"""How long a plan takes, beside reading the same objects' JSON once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from careen.core.decode import decode_core_node, decode_lock, decode_machine, decode_policy
from careen.core.encode import encode_order, encode_rollout
from careen.core.plan import make_plan
from careen.core.releases import Release
from careen.core.snapshot import Order, Rollout, Snapshot, Terms

OLD, NEW = "sha256:" + "1" * 64, "sha256:" + "2" * 64
RELEASE = Release("http://127.0.0.1", "2.0.0", NEW, 4096, "images/2")
ROLLOUT = Rollout("1-222222222222", 1, RELEASE, 1.0, 0, ("rest",), ("g",))
TERMS = Terms("default", 0, 600, 600, "Rollback", "Auto", 3600)
SINCE = "1970-01-01T00:00:01.000000Z"


@dataclass(frozen=True)
class Planning:
    """Figures for one fleet."""

    machines: int
    plan_ms: float
    json_ms: float

    @property
    def ratio(self) -> float:
        """Time of a plan by time of reading the JSON."""
        return self.plan_ms / self.json_ms


def measure(machines: int, *, rolling: bool) -> Planning:
    """Plan for an idle fleet, or for one of which half waits, staged, for a spent budget."""
    documents = [make_documents(index, rolling and index % 2 == 0) for index in range(machines)]
    text = json.dumps(documents)
    snapshot = make_snapshot(documents, rolling)
    return Planning(
        machines,
        time_best(lambda: make_plan(snapshot, 2.0)) * 1000,
        time_best(lambda: json.loads(text)) * 1000,
    )


def time_best(call: Callable[[], object], runs: int = 5) -> float:
    """Best process time of a few runs, in seconds."""
    times = []
    for _ in range(runs):
        started = time.process_time()
        call()
        times.append(time.process_time() - started)
    return min(times)


def make_documents(index: int, waiting: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """A careen Node and its core Node."""
    name = f"node-{index}"
    slot = {"partition": 3, "priority": 1, "tries": 0, "successful": True}
    running = ("1.0.0", OLD) if waiting else ("2.0.0", NEW)
    order = Order(f"o{index}", 0, 0, 0, "p", "pu", ROLLOUT.id, RELEASE, "Stage", None, None, TERMS)
    note = ("Waiting", "BudgetSpent") if waiting else ("UpToDate", "UpToDate")
    node = {
        "metadata": {"name": name, "uid": f"u{index}", "resourceVersion": "1", "generation": 1},
        "spec": {
            "coreNode": {"uid": f"c{index}", "machineID": f"m{index}"},
            **({"assignment": encode_order(order)} if waiting else {}),
        },
        "status": {
            "booted": "A",
            "bootID": f"b{index}",
            "protocol": 1,
            "bootDecision": {"method": "Kexec", "reason": "Supported", "message": "", "deadman": "TrialTimer"},
            "slots": {
                "A": {**slot, "version": running[0], "digest": running[1]},
                "B": {**slot, "partition": 4, "priority": 0, "successful": False},
            },
            "step": {"id": order.id, "phase": "Staged", "observedGoal": "Stage"} if waiting else {"phase": "Idle"},
            "orchestration": {"state": note[0], "reason": note[1], "message": "", "since": SINCE},
        },
    }
    core = {
        "metadata": {
            "name": name,
            "uid": f"c{index}",
            "resourceVersion": "1",
            "labels": {"topology.kubernetes.io/zone": f"zone-{index % 5}"},
        },
        "spec": {},
        "status": {
            "nodeInfo": {"bootID": f"b{index}", "machineID": f"m{index}"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
    return node, core


def make_snapshot(documents: list[tuple[dict[str, Any], dict[str, Any]]], rolling: bool) -> Snapshot:
    """The snapshot of a fleet under one policy; in a roll the lock is full."""
    policy = {
        "metadata": {"name": "p", "uid": "pu", "resourceVersion": "1", "generation": 1},
        "spec": {
            "release": {"repository": RELEASE.repository, "version": RELEASE.version},
            "strategy": {
                "maxUnavailable": "5%",
                "topology": [{"key": "topology.kubernetes.io/zone", "maxUnavailable": "10%"}],
            },
        },
        "status": {"rollout": encode_rollout(ROLLOUT)},
    }
    lock = {
        "metadata": {"name": "default", "uid": "l", "resourceVersion": "1", "generation": 1},
        "spec": {"max": 0 if rolling else 10},
        "status": {"term": 1},
    }
    machines = [decode_machine(node) for node, _ in documents]
    cores = [decode_core_node(core) for _, core in documents]
    return Snapshot(
        machines={machine.name: machine for machine in machines},
        core_nodes={core.name: core for core in cores},
        policies={"p": decode_policy(policy)},
        locks={"default": decode_lock(lock)},
        term=1,
    )
