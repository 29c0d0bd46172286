"""A hundred people's clients on one lock, seen by a witness that has nothing to do with them."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

from careen.api.meta import NAMESPACE
from careen.cli.lock import free_lock, take_lock
from careen.cli.target import CommandError
from careen.kube.resources import LOCKS
from careen.kube.session import Session
from careen.sandbox.witness import call_witness

CLIENTS, MOST = 100, 3
dice = random.Random(3)


async def test_a_hundred_clients_share_three_places(plane, make_lock):
    async def client(name: str) -> None:
        async with Session.connect(plane.kubeconfig, user_agent=name) as session:
            while True:
                with suppress(CommandError):  # It is full.
                    await take_lock(session, "default", name)
                    break
                await asyncio.sleep(dice.uniform(0.2, 1.0))
            await free_lock(session, "default", name)

    async with Session.connect(plane.kubeconfig, user_agent="witness") as session:
        await make_lock(session, MOST)
        async with call_witness(session, NAMESPACE) as witness:
            names = [f"client-{number}" for number in range(CLIENTS)]
            async with asyncio.timeout(200):
                await asyncio.gather(*map(client, names))
            await witness.until(
                lambda w: not w.live[LOCKS]["default"]["status"]["holders"], "the witness sees the last one free it"
            )
            histories = [set(moment.holders["default"]) for moment in witness.replay()]
    assert max(map(len, histories)) == MOST, "fewer would mean that nobody was in anybody's way"
    # Each got a place exactly once: it came among the holders once, and left once.
    came = [name for before, after in zip([set(), *histories], histories, strict=False) for name in after - before]
    assert sorted(came) == sorted(names)
