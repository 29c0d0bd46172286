"""One candidate of an election as a process of its own, to be stopped and continued by a test.

Arguments: kubeconfig, Lease name, identity, duration. Prints one JSON line for each thing that happens.
"""

import asyncio
import json
import sys
from pathlib import Path

from careen.kube.lease import Election
from careen.kube.session import Session


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


async def main() -> None:
    kubeconfig, name, identity, duration = sys.argv[1:]
    async with Session.connect(Path(kubeconfig), user_agent="candidate") as session:
        election = Election(session, "default", name, identity, duration=float(duration))

        async def lead(term: int) -> None:
            say(event="started", term=term)
            try:
                while True:
                    held = election.holds()
                    await asyncio.sleep(0.01)
                    if held and not election.holds():
                        # What a stopped leader finds first when it goes on.
                        say(event="fenced", term=term)
                        await asyncio.sleep(60)
            finally:
                say(event="ended", term=term)

        await election.run(lead, lambda reason: say(event="lost", reason=reason))


asyncio.run(main())
