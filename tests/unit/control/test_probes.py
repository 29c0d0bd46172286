"""What a kubelet hears from an operator that starts, works, and is stuck."""

from __future__ import annotations

import aiohttp
import pytest
import typer

from careen.cli.operator import check_address
from careen.control.probes import Probes
from careen.sandbox.components import free_ports


async def ask(address: str, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as client, client.get(f"http://{address}/{path}") as answer:
        return answer.status, await answer.text()


async def test_before_anything_is_known_it_lives_but_is_not_ready():
    address = f"127.0.0.1:{free_ports(1)[0]}"
    async with Probes().served(address):
        assert await ask(address, "healthz") == (200, "ok\n")
        assert await ask(address, "readyz") == (503, "waiting for the kinds of Careen to be served\n")


async def test_the_operator_is_asked_each_time():
    address, probes, faults = f"127.0.0.1:{free_ports(1)[0]}", Probes(), ["the leader has not planned for 200 s", None]
    probes.find_fault = faults.pop
    probes.find_gap = lambda: None
    async with probes.served(address):
        assert (await ask(address, "readyz"))[0] == 200
        assert (await ask(address, "healthz"))[0] == 200
        assert await ask(address, "healthz") == (503, "the leader has not planned for 200 s\n")


async def test_without_an_address_nothing_is_served():
    async with Probes().served(None):
        pass


@pytest.mark.parametrize("address", ["", "8081", ":8081", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000"])
def test_an_address_that_is_none_is_refused(address: str):
    with pytest.raises(typer.BadParameter, match="allowed: HOST:PORT"):
        check_address(address)


@pytest.mark.parametrize("address", ["0.0.0.0:8081", "[::1]:8081", "fd00::1:8081", None])
def test_an_address_is_taken_as_it_is(address: str | None):
    assert check_address(address) == address
