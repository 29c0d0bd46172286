"""Units for whole fleets: manifests of each sort, and making hundreds of them at once."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from careen.kube.errors import AlreadyExists
from careen.kube.resources import UNITS
from careen.kube.retry import retry_idempotent
from careen.kube.session import Session
from careen.kube.write import create

Document = dict[str, Any]
CONTENT = "[Service]\nExecStart=/usr/bin/serve %n\n"
AT_ONCE = 8
"""Requests under way at a time: more would only wait for each other in the API server."""


def make_unit(name: str, *, options: Iterable[str] = (), **placement: Any) -> Document:
    """A Unit that is to be launched; options: lines of [X-Fleet]; placement: fields of spec.placement."""
    section = "".join(f"{line}\n" for line in options)
    spec = {"name": name, "content": CONTENT + (f"[X-Fleet]\n{section}" if section else ""), "desiredState": "launched"}
    if placement:
        spec["placement"] = placement
    return {"metadata": {"name": re.sub(r"[^a-z0-9.-]", "-", name)}, "spec": spec}


def make_rivals(group: str, count: int) -> list[Document]:
    """Units no two of which may be on one machine."""
    conflict = f"Conflicts={group}@*.service"
    return [make_unit(f"{group}@{number}.service", options=[conflict]) for number in range(1, count + 1)]


def make_pair(number: int) -> list[Document]:
    """A unit, and one that goes where that goes."""
    first = f"db-{number}.service"
    return [make_unit(first), make_unit(f"side-{number}.service", options=[f"MachineOf={first}"])]


def find_wrongs(machine: str, units: Iterable[str]) -> list[str]:
    """Rivals on one machine, by their names alone."""
    seen: dict[str, str] = {}
    wrongs = []
    for name in units:
        group, at, _ = name.partition("@")
        if at and group in seen:
            wrongs.append(f"{seen[group]} and {name} both run on {machine}")
        seen[group] = name
    return wrongs


def name_of(unit: Document) -> str:
    """The unit's name for systemd."""
    return str(unit["spec"]["name"])


async def create_units(session: Session, units: Iterable[Document]) -> None:
    """Make all of them; one whose answer is lost on a busy machine is asked for again."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def make(unit: Document) -> None:
        async with gate:
            with suppress(AlreadyExists):
                await retry_idempotent(partial(create, session, UNITS, unit), deadline=30.0)

    async with asyncio.TaskGroup() as group:
        for unit in units:
            group.create_task(make(unit))
