"""`careen plan`: a dry run of the operator's own decision on the live cluster. Nothing is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from careen.cli.target import (
    AsJson,
    CommandError,
    ContextName,
    Kubeconfig,
    Namespace,
    ReleaseCache,
    call,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Group

    from careen.core.forecast import Forecast, WaveOutlook
    from careen.core.releases import Lookup
    from careen.core.snapshot import Policy
    from careen.kube.session import Session


def show_plan(
    ctx: typer.Context,
    policy: Annotated[str, typer.Argument(metavar="POLICY", help="Name of the UpdatePolicy.")],
    *,
    as_json: AsJson = False,
    namespace: Namespace = None,
    trust_root: Annotated[
        Path | None,
        typer.Option(
            "--trust-root",
            envvar="CAREEN_TRUST_ROOT",
            help="File with the root.json to look the release up with, from here. Default: what the operator found.",
            dir_okay=False,
        ),
    ] = None,
    release_cache: ReleaseCache = None,
    kubeconfig: Kubeconfig = None,
    context: ContextName = None,
) -> None:
    """Show what would happen next under a policy, and for each machine that waits the reason and the sentence."""
    from careen.cli.tables import open_console

    forecast, now = call(
        ctx,
        kubeconfig,
        context,
        lambda session: forecast_policy(session, policy, namespace, trust_root, release_cache),
    )
    if as_json:
        typer.echo(json.dumps(describe_forecast(forecast), indent=2))
    else:
        open_console().print(draw_forecast(forecast, now))


async def forecast_policy(
    session: Session,
    name: str,
    namespace: str | None = None,
    trust_root: Path | None = None,
    release_cache: Path | None = None,
) -> tuple[Forecast, float]:
    """The forecast, and the API server's time that it is for. CommandError when there is no such policy.

    namespace: of the install; None: careen-system. trust_root: file with the root.json by which the release is looked
    up; None: what the operator has found counts. release_cache: folder for signed metadata; None: the user's.
    """
    from dataclasses import replace

    from careen.api.meta import NAMESPACE
    from careen.cli.fleet import read_facts, read_objects, server_now
    from careen.core.assemble import assemble
    from careen.core.forecast import foresee

    reading = await read_objects(session)
    policies = reading.objects.policies
    if name not in policies:
        raise CommandError(f"there is no UpdatePolicy {name}; there are: {', '.join(sorted(policies)) or 'none'}")
    objects, facts = await read_facts(session, reading, namespace or NAMESPACE)
    lookup = await _look_up(policies[name], trust_root, release_cache, lambda: server_now(session))
    facts = replace(facts, releases={policies[name].release_key: lookup})
    now = server_now(session)
    return foresee(assemble(objects, facts), name, now), now


async def _look_up(policy: Policy, trust_root: Path | None, cache: Path | None, clock: Callable[[], float]) -> Lookup:
    """The policy's release: looked up as the operator does it, or as the operator has made it known."""
    from careen.api.reasons import Reason
    from careen.control.releases import explain_fault
    from careen.control.settings import default_cache
    from careen.control.signed import SignedFinder
    from careen.core.releases import Fault, Lookup
    from careen.core.resolution import recall_lookup
    from careen.release.errors import ReleaseError

    known = recall_lookup(policy)
    if trust_root is None:
        asks = "the operator has not looked the release up yet; --trust-root FILE looks it up from here"
        return known or Lookup(fault=Fault(str(Reason.RELEASE_UNRESOLVED), asks))
    try:
        finding = await SignedFinder(trust_root, cache or default_cache(), clock).find(policy.release_key)
    except ReleaseError as error:
        return Lookup(known.release if known is not None else None, fault=explain_fault(error))
    return Lookup(finding.release)


def describe_forecast(forecast: Forecast) -> dict[str, Any]:
    """The forecast as one document."""
    from careen.core.encode import encode_rollout
    from careen.core.instants import format_instant

    def show(instant: float | None) -> str | None:
        return format_instant(instant) if instant is not None else None

    return {
        "policy": forecast.policy,
        "channel": forecast.channel,
        "rollout": encode_rollout(forecast.rollout) if forecast.rollout is not None else None,
        "begins": forecast.begins,
        "unresolved": forecast.unresolved.message if forecast.unresolved is not None else None,
        "waves": [
            {
                "name": wave.name,
                "machines": list(wave.machines),
                "done": wave.done,
                "open": wave.open,
                "soakSeconds": wave.soak_seconds,
                "soakingUntil": show(wave.soaking_until),
            }
            for wave in forecast.waves
        ],
        "next": [{"action": s.action, "machine": s.machine, "message": s.message} for s in forecast.steps],
        "machines": [
            {"machine": e.machine, "state": e.state, "reason": e.reason, "message": e.message, "until": show(e.until)}
            for e in forecast.explanations
        ],
    }


def draw_forecast(forecast: Forecast, now: float) -> Group:
    """The forecast as tables."""
    from rich.console import Group
    from rich.text import Text

    from careen.cli.tables import add_row, make_table

    parts: list[Any] = [Text(_headline(forecast))]
    if forecast.waves:
        waves = make_table("WAVE", "DONE", "STATE", "MACHINES")
        for wave in forecast.waves:
            done = f"{wave.done}/{len(wave.machines)}"
            add_row(waves, (wave.name, done, _judge(wave, now), ", ".join(wave.machines)))
        parts += ["", waves]
    steps = make_table("NEXT", "MACHINE", "WHAT HAPPENS")
    for index, step in enumerate(forecast.steps, 1):
        add_row(steps, (f"{index}. {step.action}", step.machine, step.message))
    parts += ["", steps if forecast.steps else Text("Nothing would be done now.")]
    if forecast.explanations:
        machines = make_table("MACHINE", "STATE", "REASON", "UNTIL", "SENTENCE")
        for each in forecast.explanations:
            until = f"{max(0.0, each.until - now):.0f}s" if each.until is not None else "-"
            add_row(machines, (each.machine, each.state, each.reason, until, each.message), each.state)
        parts += ["", machines]
    return Group(*parts)


def _headline(forecast: Forecast) -> str:
    rollout = forecast.rollout
    if rollout is None:
        fault = forecast.unresolved
        return f"{forecast.policy}: {fault.message if fault is not None else 'no rollout'}"
    from careen.core.resolution import describe_release

    to = f"{forecast.policy}: rollout {rollout.id} to {describe_release(forecast.channel, rollout.release)}"
    if forecast.begins:
        return f"{to} would begin"
    return f"{to}, halted after {rollout.failed} failures" if rollout.halted_at is not None else to


def _judge(wave: WaveOutlook, now: float) -> str:
    if wave.soaking_until is not None:
        return f"soaks {max(0.0, wave.soaking_until - now):.0f}s more"
    if wave.open:
        return "open"
    return "done" if wave.done == len(wave.machines) else "pending"
