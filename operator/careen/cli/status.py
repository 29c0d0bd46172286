"""`careen status`: where policies, machines and locks stand, as it is stored in the objects."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from careen.cli.target import AsJson, CommandError, ContextName, Kubeconfig, call

if TYPE_CHECKING:
    from rich.console import Group

    from careen.cli.fleet import Reading
    from careen.core.snapshot import Policy
    from careen.kube.session import Session

REFRESH_SECONDS = 0.25


def show_status(
    ctx: typer.Context,
    *,
    policy: Annotated[str | None, typer.Argument(metavar="[POLICY]", help="Only this UpdatePolicy.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show changes as they come, until Ctrl-C.")] = False,
    as_json: AsJson = False,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Show policies, machines and reboot locks: versions, slots, orders, and why each machine waits."""
    if watch and as_json:
        raise typer.BadParameter("--watch can't be used with --json")
    if watch:
        call(ctx, kubeconfig, context, lambda session: _watch(session, policy))
        return
    from careen.cli.fleet import read_objects
    from careen.cli.tables import open_console

    reading = call(ctx, kubeconfig, context, read_objects)
    if as_json:
        typer.echo(json.dumps(describe_status(reading, policy), indent=2))
    else:
        open_console().print(draw_status(reading, policy))


def describe_status(reading: Reading, only: str | None = None) -> dict[str, Any]:
    """The status as one document. CommandError when there is no policy of that name."""
    from careen.core.encode import encode_holder
    from careen.core.lines import read_line

    chosen, machines, locks = _choose(reading, only)
    return {
        "policies": [_describe_policy(policy) for policy in chosen],
        "machines": [
            asdict(read_line(machine, reading.documents[machine.name], reading.objects.locks.values()))
            for machine in machines
        ],
        "locks": [
            {
                "name": lock.name,
                "max": lock.max,
                "available": lock.available,
                "paused": lock.paused,
                "holders": [encode_holder(holder) for holder in lock.holders],
            }
            for lock in locks
        ],
    }


def draw_status(reading: Reading, only: str | None = None) -> Group:
    """The status as tables. CommandError when there is no policy of that name."""
    from rich.console import Group

    from careen.cli.tables import add_row, make_table, tell_age
    from careen.core.lines import read_line

    chosen, machines, locks = _choose(reading, only)
    policies = make_table("POLICY", "VERSION", "WAVE", "UPDATED", "UNAVAILABLE", "FAILED", "STATE", "SENTENCE")
    for policy in chosen:
        shown = _describe_policy(policy)
        shown["version"] = _tell_release(policy) or shown["version"]
        keys = ("name", "version", "wave", "updated", "unavailable", "failed", "state", "message")
        add_row(policies, [shown[key] for key in keys])
    nodes = make_table("MACHINE", "SLOTS P/T/S", "VERSION", "ORDER", "REASON", "SENTENCE")
    for machine in machines:
        line = read_line(machine, reading.documents[machine.name], reading.objects.locks.values())
        order = f"{line.wanted} {line.goal}/{line.phase}" if line.order else "-"
        cells = (line.machine, line.slots, line.version, order, line.reason, line.message)
        add_row(nodes, cells, line.state)
    held = make_table("LOCK", "MAX", "AVAILABLE", "HOLDERS")
    for lock in locks:
        holders = ", ".join(f"{holder.id} ({tell_age(holder.since, reading.now)})" for holder in lock.holders)
        add_row(held, (lock.name, lock.max, lock.available, holders or ("paused" if lock.paused else "-")))
    return Group(policies, "", nodes, "", held)


def _choose(reading: Reading, only: str | None) -> tuple[list[Any], list[Any], list[Any]]:
    """Policies, machines and locks to show, each sorted by name."""
    objects = reading.objects
    if only is None:
        return tuple(  # type: ignore[return-value]
            [each[name] for name in sorted(each)] for each in (objects.policies, objects.machines, objects.locks)
        )
    from careen.core.assemble import Facts, assemble
    from careen.core.fleet import survey

    policy = objects.policies.get(only)
    if policy is None:
        there = ", ".join(sorted(objects.policies)) or "none"
        raise CommandError(f"there is no UpdatePolicy {only}; there are: {there}")
    names = survey(assemble(objects, Facts())).members[only]
    lock = objects.locks.get(policy.terms.lock)
    return [policy], [objects.machines[name] for name in sorted(names)], [lock] if lock is not None else []


def _describe_policy(policy: Policy) -> dict[str, Any]:
    rollout, counts = policy.rollout, policy.counts
    state, message = _judge(policy)
    wave = f"{rollout.wave_names[rollout.wave]} ({rollout.wave + 1}/{len(rollout.wave_names)})" if rollout else ""
    return {
        "name": policy.name,
        "version": rollout.release.version if rollout else policy.version or policy.digest,
        "channel": policy.channel,
        "resolved": asdict(policy.resolved) if policy.resolved is not None else None,
        "rollout": rollout.id if rollout else None,
        "wave": wave,
        "updated": f"{counts.get('updated', 0)}/{counts.get('selected', 0)}",
        "unavailable": counts.get("unavailable", 0),
        "failed": counts.get("failed", 0),
        "state": state,
        "message": message,
    }


def _tell_release(policy: Policy) -> str | None:
    """A channel with what it was last found to be; None where the policy follows none, or it was not found yet."""
    from careen.core.resolution import describe_release
    from careen.core.rollouts import answers

    if policy.channel is None:
        return None
    found = policy.resolved if policy.resolved is not None and answers(policy.resolved, policy) else None
    return describe_release(policy.channel, found) if found is not None else policy.channel


def _judge(policy: Policy) -> tuple[str, str]:
    """What tells most about the policy, its reason and sentence; trouble with its repository is added."""
    from careen.core.resolution import RESOLVED_CONDITION, TROUBLES

    state, message = _find_state(policy)
    trouble = policy.conditions.get(RESOLVED_CONDITION)
    if trouble is None or trouble.reason not in TROUBLES or state in (trouble.reason, "Unseen"):
        return state, message
    return state, f"{message}; {trouble.reason}: {trouble.message}"


def _find_state(policy: Policy) -> tuple[str, str]:
    if policy.observed_generation != policy.generation:
        return "Unseen", "the operator has not seen this version of the policy yet"
    if policy.paused:
        return "Paused", "spec.paused; `careen resume` goes on"
    for name in ("Halted", "PolicyConflict", "Waiting", "Progressing", "Complete"):
        condition = policy.conditions.get(name)
        if condition is not None and condition.status == "True":
            return name if name in ("Halted", "Complete", "Progressing") else condition.reason, condition.message
    complete = policy.conditions.get("Complete")
    return (complete.reason, complete.message) if complete is not None else ("Unseen", "")


async def _watch(session: Session, only: str | None) -> None:
    """Draw again when something has changed, at most four times a second."""
    from rich.live import Live

    from careen.cli.fleet import follow_objects
    from careen.cli.tables import open_console

    with Live(console=open_console(), auto_refresh=False, screen=False) as live:
        async for reading in follow_objects(session):
            live.update(draw_status(reading, only), refresh=True)
            await asyncio.sleep(REFRESH_SECONDS)
