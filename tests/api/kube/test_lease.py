"""Elections on the real API server, with candidates that die, sleep and go."""

import asyncio
import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from careen.kube.lease import Election, LeaseRecord, renew_agent_lease
from careen.kube.resources import LEASES
from careen.kube.session import Session
from careen.kube.write import delete, patch_merge

CANDIDATE = Path(__file__).with_name("candidate.py")


async def until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        await asyncio.sleep(0.005)


class Candidate:
    """An election in this process, with its history."""

    def __init__(self, session, identity, **options):
        self.election = Election(session, "default", "leader", identity, **{"duration": 1.0, **options})
        self.terms = []
        self.lost = []
        self.working = False
        self.task = asyncio.create_task(self.election.run(self.work, self.lost.append))

    async def work(self, term):
        self.terms.append(term)
        self.working = True
        try:
            await asyncio.sleep(3600)
        finally:
            self.working = False

    async def stop(self):
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task

    async def die(self, monkeypatch):
        """End without giving the Lease back."""
        monkeypatch.setattr(self.election, "_release", lambda: asyncio.sleep(0))
        await self.stop()


@pytest.fixture
async def stand(session):
    made = []

    def make(identity, using=session, **options):
        made.append(Candidate(using, identity, **options))
        return made[-1]

    yield make
    for candidate in made:
        await candidate.stop()


async def read(session):
    return LeaseRecord.read((await session.request("GET", LEASES.path("default", "leader"))).body)


async def test_a_standby_takes_over_at_once_when_the_leader_goes(session, stand):
    one = stand("one", duration=15)
    await until(lambda: one.terms)
    two = stand("two", duration=15)
    await asyncio.sleep(1.5)
    assert not two.terms
    assert two.election.holder == "one"
    before = time.monotonic()
    await one.stop()
    await until(lambda: two.terms, 2)
    assert time.monotonic() - before < 0.5
    assert not one.working
    assert two.terms == [one.terms[0] + 1]


async def test_renewal_keeps_the_others_out_and_asks_for_little(session, stand, records):
    one, two = stand("one", duration=2.0), stand("two", duration=2.0)
    await until(lambda: one.terms or two.terms)
    # Each looks once before it begins: the standby of a busy machine may do so late.
    await until(lambda: sum(record.verb == "get" for record in records) >= 2)
    await asyncio.sleep(0.2)
    records.clear()
    await asyncio.sleep(3)
    assert len(one.terms + two.terms) == 1
    assert not one.lost + two.lost
    updates = [record for record in records if record.verb == "update"]
    assert 5 <= len(updates) <= 8
    # The standby watches; it does not ask.
    assert len(records) == len(updates)


async def test_a_dead_leader_is_replaced_after_its_time_and_not_before(session, stand, monkeypatch):
    one = stand("one")
    await until(lambda: one.terms)
    await one.die(monkeypatch)
    two = stand("two")
    before = time.monotonic()
    await until(lambda: two.terms, 3)
    assert 0.9 < time.monotonic() - before < 1.6
    assert two.terms[0] == one.terms[0] + 1


async def test_a_leader_without_the_server_stops_before_another_can_start(own_plane, session, stand):
    with own_plane.proxy() as proxy:
        kubeconfig = own_plane.kubeconfig_for("leader", ["system:masters"], server=proxy.url)
        async with Session.connect(kubeconfig, user_agent="t") as cut:
            one = stand("one", cut)
            await until(lambda: one.terms)
            two = stand("two")
            await asyncio.sleep(0.3)
            proxy.cut()
            await until(lambda: not one.working, 2)
            assert not two.terms
            assert not one.election.holds()
            assert one.lost
            assert "not renewed" in one.lost[0]
            await until(lambda: two.terms, 2)
            proxy.restore()
            await two.stop()
            await until(lambda: len(one.terms) == 2, 3)
            assert one.terms[0] < two.terms[0] < one.terms[1]
            await one.stop()


async def test_a_lease_taken_or_deleted_by_somebody_ends_the_lead(session, stand):
    one = stand("one", term_floor=lambda: 40)
    await until(lambda: one.terms)
    assert one.terms == [41]
    taken = {"spec": {"holderIdentity": "somebody", "leaseTransitions": 50}}
    await patch_merge(session, LEASES, "leader", taken, namespace="default")
    await until(lambda: one.lost, 2)
    assert one.lost == ["somebody holds the Lease in term 50"]
    await until(lambda: len(one.terms) == 2, 3)
    assert one.terms[1] == 51
    await delete(session, LEASES, "leader", namespace="default")
    await until(lambda: len(one.lost) == 2, 2)
    assert one.lost[1] == "the Lease was deleted"
    await until(lambda: len(one.terms) == 3, 3)


async def test_an_edit_of_a_label_does_not_end_the_lead(session, stand):
    one = stand("one")
    await until(lambda: one.terms)
    for number in range(10):
        await patch_merge(session, LEASES, "leader", {"metadata": {"labels": {"n": str(number)}}}, namespace="default")
        await asyncio.sleep(0.15)
    assert one.working
    assert not one.lost


async def test_work_that_fails_gives_the_lease_back_and_is_heard(session):
    async def work(term):
        raise ValueError("a bug")

    election = Election(session, "default", "leader", "one")
    with pytest.raises(ValueError, match="a bug"):
        await asyncio.wait_for(election.run(work, print), 5)
    assert (await read(session)).holder == ""


async def take_over(process, hear, two):
    """Stop the leading process until `two` leads, let it go on, give it the lead back; the two new terms."""
    await until(lambda: two.election.holder == "sleeper")
    process.send_signal(signal.SIGSTOP)
    await until(lambda: two.terms, 5)
    process.send_signal(signal.SIGCONT)
    heard = []
    while "ended" not in heard:
        heard.append((await hear())["event"])
    assert "lost" in heard
    assert two.working
    await two.stop()
    return [two.terms[0], (await hear())["term"]]


async def test_a_stopped_leader_finds_itself_fenced_and_returns_in_a_higher_term(plane, session, stand):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(CANDIDATE), str(plane.kubeconfig), "leader", "sleeper", "1"),
        stdout=asyncio.subprocess.PIPE,
        env=env,
    )

    async def hear():
        return json.loads(await asyncio.wait_for(process.stdout.readline(), 10))

    try:
        terms = [(await hear())["term"]]
        for _ in range(3):
            terms += await take_over(process, hear, stand("two"))
        assert terms == sorted(set(terms))
        assert len(terms) == 7
    finally:
        process.kill()
        await process.wait()


async def test_the_agents_heartbeat_is_one_write(session, records):
    namespace = (await session.request("GET", "/api/v1/namespaces/default")).body
    # A real owner: the garbage collector takes away what belongs to nobody.
    owner = {"apiVersion": "v1", "kind": "Namespace", "name": "default", "uid": namespace["metadata"]["uid"]}
    first = await renew_agent_lease(session, "default", "n1", owner=owner)
    assert first["metadata"]["ownerReferences"][0]["uid"] == owner["uid"]
    records.clear()
    second = await renew_agent_lease(session, "default", "n1", owner=owner)
    assert [record.verb for record in records] == ["patch"]
    assert second["spec"]["renewTime"] > first["spec"]["renewTime"]
    assert second["spec"]["holderIdentity"] == "n1"
    assert second["spec"]["leaseDurationSeconds"] == 180
