"""Units and machines of the cluster: read, made, changed, deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from careen.cli.fleet import Document, find, list_all
from careen.cli.target import CommandError
from careen.cli.units.selection import Step
from careen.cli.units.views import MachineView, UnitView, elect_units, read_machine
from careen.kube.errors import AlreadyExists, Forbidden, NotFound
from careen.kube.resources import CORE_NODES, NODES, UNITS
from careen.kube.write import create, delete, patch_merge
from careen.units.names import check_name, name_object

if TYPE_CHECKING:
    from careen.kube.session import Session

FEW = 8
"""Units that are looked up one by one; for more, or for a pattern, all of them are read."""


async def read_units(session: Session, names: Iterable[str] | None = None) -> dict[str, UnitView]:
    """Units by full name: those of these names as far as they exist, or all. CommandError without our kinds."""
    if names is None or len(wanted := list(dict.fromkeys(names))) > FEW:
        return elect_units(await _list_units(session))
    found = await asyncio.gather(*(_find_units(session, name) for name in wanted))
    return elect_units({each["metadata"]["name"]: each for documents in found for each in documents}.values())


async def _find_units(session: Session, name: str) -> list[Document]:
    """All objects of this unit's name: only the oldest counts, and anybody may have made more."""
    if check_name(name) is not None:
        return []
    # In a selector a backslash, which systemd's escaped names have, is escaped itself.
    selector = "spec.name=" + name.replace("\\", "\\\\")
    documents = await _list_units(session, {"fieldSelector": selector})
    if name_object(name) == name:
        plain = await find(session, UNITS, name)
        if plain is not None and not (plain.get("spec") or {}).get("name"):
            documents.append(plain)
    return documents


async def _list_units(session: Session, query: dict[str, str] | None = None) -> list[Document]:
    try:
        return await list_all(session, UNITS, query=query)
    except NotFound as error:
        raise CommandError(
            "this cluster has no units: `careen crds | kubectl apply --server-side -f -` installs the kinds"
        ) from error


async def read_machines(session: Session) -> dict[str, MachineView]:
    """All machines, by name. Who may not list core Nodes sees no addresses and no labels."""
    try:
        nodes = await list_all(session, NODES)
    except NotFound as error:
        raise CommandError(
            "this cluster has no machines: `careen crds | kubectl apply --server-side -f -` installs the kinds"
        ) from error
    try:
        cores = {each["metadata"]["name"]: each for each in await list_all(session, CORE_NODES)}
    except Forbidden:
        cores = {}
    return {
        name: read_machine(node, cores.get(name))
        for name, node in sorted((node["metadata"]["name"], node) for node in nodes)
    }


async def read_machine_named(session: Session, word: str) -> MachineView:
    """The machine of this name, or whose id begins so. CommandError for none, and for several."""
    node = await find(session, NODES, word)
    if node is not None:
        try:
            core = await find(session, CORE_NODES, word)
        except Forbidden:
            core = None
        return read_machine(node, core)
    machines = await read_machines(session)
    found = [each for each in machines.values() if each.id.startswith(word)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(each.name for each in found) or "none"
    raise CommandError(f"{word} must be a machine's name, or the beginning of one machine's id; it fits: {names}")


async def write_step(session: Session, step: Step) -> int:
    """Make or change the unit; the generation of the object that has it all. CommandError when it is not there."""
    changes = step.changes
    if step.known is None:
        spec = changes if step.object == step.name else {"name": step.name, **changes}
        try:
            made = await create(session, UNITS, {"metadata": {"name": step.object}, "spec": spec})
        except AlreadyExists as error:
            raise CommandError(f"Unit {step.name} was made by somebody else just now; call this again") from error
        return int(made["metadata"].get("generation", 0))
    if not changes:
        return step.known.generation
    return await change_unit(session, step.known, changes)


async def change_unit(session: Session, unit: UnitView, changes: dict[str, str]) -> int:
    """Set fields of a unit's spec; the generation that has them. CommandError when the unit is no longer there."""
    try:
        # No version is named: what people wish is the same whatever was written in between.
        made = await patch_merge(session, UNITS, unit.object, {"spec": changes})
    except NotFound as error:
        raise CommandError(f"Unit {unit.name} was destroyed meanwhile") from error
    return int(made["metadata"].get("generation", 0))


async def destroy_unit(session: Session, unit: UnitView) -> None:
    """Delete a unit; one that is gone already, or that was made anew, is no error."""
    await delete(session, UNITS, unit.object, uid=unit.uid)
