"""`careen pause` and `careen resume`: stop a policy from starting anything new, and let it go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from careen.cli.target import CommandError, ContextName, Kubeconfig, call

if TYPE_CHECKING:
    from careen.kube.session import Session

PolicyName = Annotated[str, typer.Argument(metavar="POLICY", help="Name of the UpdatePolicy.")]


def pause(ctx: typer.Context, policy: PolicyName, kubeconfig: Kubeconfig = None, context: ContextName = None) -> None:
    """Start nothing new under a policy. Machines in flight finish, commit included."""
    typer.echo(call(ctx, kubeconfig, context, lambda session: pause_policy(session, policy)))


def resume(ctx: typer.Context, policy: PolicyName, kubeconfig: Kubeconfig = None, context: ContextName = None) -> None:
    """Undo `careen pause`, and lift the halt of a rollout after failures that you have seen."""
    typer.echo(call(ctx, kubeconfig, context, lambda session: resume_policy(session, policy)))


async def pause_policy(session: Session, name: str) -> str:
    """Set spec.paused; what to tell the user. CommandError when there is no such policy."""
    from careen.cli.fleet import get
    from careen.kube.resources import POLICIES
    from careen.kube.write import patch_merge

    found = await get(session, POLICIES, name)
    if found["spec"].get("paused"):
        return f"updatepolicy {name} is paused already"
    await patch_merge(session, POLICIES, name, {"spec": {"paused": True}})
    flying = (found.get("status") or {}).get("counts", {}).get("inFlight", 0)
    finishing = f"; {flying} in flight will finish" if flying else ""
    return f"updatepolicy {name} paused{finishing}"


async def resume_policy(session: Session, name: str) -> str:
    """Take spec.paused back and forgive the failures that are there now; what to tell the user.

    CommandError for a rollout with so many failures that it halts again at once.
    """
    from careen.api.meta import RESUME_ANNOTATION
    from careen.api.rollout import MOST_FAILURES
    from careen.cli.fleet import get
    from careen.core.decode import decode_policy
    from careen.core.rollouts import count_failures
    from careen.kube.resources import POLICIES
    from careen.kube.write import patch_merge

    found = decode_policy(await get(session, POLICIES, name))
    change: dict[str, dict[str, object]] = {}
    told = []
    if found.paused:
        change["spec"] = {"paused": False}
        told.append(f"updatepolicy {name} is no longer paused")
    rollout = found.rollout
    full = rollout is not None and rollout.halted_at is not None and len(rollout.failures) >= MOST_FAILURES
    if rollout is not None and rollout.halted_at is not None and not full:
        # The number says which failures were seen: one more that comes meanwhile halts the rollout again.
        change["metadata"] = {"annotations": {RESUME_ANNOTATION: f"{rollout.id}/{rollout.failed}"}}
        told.append(
            f"rollout {rollout.id} goes on after {count_failures(rollout.failed)}; "
            "`careen retry NODE` tries the release again where it was rolled back"
        )
    if not change and not full:
        return f"updatepolicy {name} is neither paused nor halted"
    if change:
        await patch_merge(session, POLICIES, name, change)
    if full and rollout is not None:
        stays = f"rollout {rollout.id} stays halted: it has {MOST_FAILURES} failures, as many as are recorded"
        raise CommandError("; ".join((*told, f"{stays}; only another release goes on")))
    return "\n".join(told)
