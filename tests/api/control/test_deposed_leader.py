"""A leader is stopped in the middle of a grant, another one takes over and grants, and then the first one wakes up."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from careen.api.meta import LEADER_LEASE
from careen.kube.resources import LEASES, LOCKS
from careen.sandbox.audit import AuditReader
from careen.sandbox.controlplane import ControlPlane
from careen.sandbox.processes import Child

ROUNDS = 10
PROGRAM = Path(__file__).with_name("stopping_operator.py")


def is_stopped(child: Child) -> bool:
    text = Path(f"/proc/{child.process.pid}/stat").read_text()
    return text.rpartition(")")[2].split()[0] == "T"


async def wait_for(check, what: str, seconds: float = 60.0):
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.02)
    return found


def read_lease(lease: dict) -> tuple[str, int]:
    spec = lease.get("spec", {})
    return spec.get("holderIdentity") or "", spec.get("leaseTransitions") or 0


def lead(scene) -> tuple[str, int]:
    """Who leads, in which term."""
    return read_lease(scene.witness.live[LEASES].get(LEADER_LEASE, {}))


def leads_again(scene, identity: str, after: int) -> bool:
    """Whether it led in a later term: on a busy machine a lead of one second is lost without any fault."""
    leads = map(read_lease, scene.witness.history(LEASES, LEADER_LEASE))
    return any(holder == identity and term > after for holder, term in leads)


@pytest.mark.slow
async def test_a_leader_that_wakes_up_late_changes_nothing(stage, own_plane: ControlPlane, tmp_path: Path):
    file, audit = tmp_path / "stop", AuditReader(own_plane.audit_log)
    seen = []

    def lock_writes(identity: str) -> list[int]:
        """Codes of the answers to this process's writes of locks since the last call of audit.read."""
        seen.extend(audit.read())
        agent = f"careen-operator/{identity}"
        return [r.code for r in seen if r.is_write and r.resource == "rebootlocks" and r.user_agent == agent]

    async with stage(3 * ROUNDS, boot_seconds=1.0, operator=False) as scene:
        program = (str(PROGRAM), str(file))
        children = {
            name: scene.fleet.start_operator(identity=name, lease_seconds=1.0, program=program) for name in ("a", "b")
        }

        await scene.edit_lock(max=0)
        await scene.policy(strategy={"maxStaging": 3 * ROUNDS})
        await scene.until(lambda: all(scene.phase(name) == "Staged" for name in scene.fleet.names), "all staged")
        for number in range(ROUNDS):
            place = ("plan", "write")[number % 2]
            seen.clear()
            audit.read()
            file.write_text(place)
            await scene.edit_lock(max=1)
            late = await wait_for(lambda: next((n for n, c in children.items() if is_stopped(c)), None), "one stops")
            term = scene.lock()["status"]["term"]
            # The second one has raised its fence and granted.
            await scene.until(lambda t=term: scene.lock()["status"]["term"] > t, "the other one leads")
            await scene.until(scene.holders, "the other one grants")
            before = lock_writes(late)
            os.kill(children[late].process.pid, signal.SIGCONT)
            if place == "write":
                codes = await wait_for(
                    lambda b=before, n=late: (now := lock_writes(n)) != b and now[len(b) :],
                    "the late write is answered",
                )
                assert codes[0] in (409, 422), f"round {number}: {codes}"
            # Asleep for longer than its lead, it may not even try: its own clock tells it.
            await scene.until(lambda n=late, t=term: lead(scene)[1] > t, "the late one has lost its lead")
            await scene.edit_lock(max=0)
            await scene.until(lambda: not scene.holders(), "the lock is free")
            if place == "plan":
                assert lock_writes(late) == before, "a leader past its lead has written to a lock"
        locks = scene.witness.history(LOCKS, "default")
        assert max(len(lock.get("status", {}).get("holders") or ()) for lock in locks) == 1
        terms = [moment.terms["default"] for moment in scene.witness.replay()]
        assert terms == sorted(terms)
        assert len(set(terms)) > ROUNDS
        assert max(len(moment.unavailable) for moment in scene.witness.replay()) <= 1
        await scene.edit_lock(max=1)
        await scene.until(
            lambda: len([n for n in scene.fleet.names if scene.version(n) == "2.0.0"]) > ROUNDS, "it goes on"
        )
