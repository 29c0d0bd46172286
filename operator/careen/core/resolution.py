"""What a policy's status says about the lookup of its release: the outcome, a condition, and the turns of it."""

from careen.api.reasons import Reason

from .actions import Turn
from .instants import format_instant
from .releases import Fault, Lookup, Release, Resolved
from .rollouts import LOOKING_UP, Progress, answers, is_current
from .snapshot import Policy

RESOLVED_CONDITION = "ReleaseResolved"
"""Type of the condition: False when the last attempt failed, True with reason MetadataExpiring ahead of trouble."""
EXPIRY_WARNING_SECONDS = 12 * 3600.0
"""How long before the metadata expires the condition says so."""
KEEP_SECONDS = 3600.0
"""How old a stored outcome may get before it is written again only because it was confirmed: a lookup every few minutes
must not cost a write every few minutes."""
FAULTS = frozenset({Reason.TRUST_FAILED, Reason.RELEASE_UNAVAILABLE})
TROUBLES = FAULTS | {Reason.METADATA_EXPIRING}
"""Reasons of the condition that people must see to."""


def find_resolved(policy: Policy, lookup: Lookup | None) -> Resolved | None:
    """The outcome to store: the last good one, unless it is of something that the policy no longer asks for."""
    stored = policy.resolved if policy.resolved is not None and answers(policy.resolved, policy) else None
    if lookup is None or lookup.release is None:
        return stored
    release, at = lookup.release, lookup.resolved_at or 0.0
    if (
        stored is not None
        and (stored.version, stored.digest) == (release.version, release.digest)
        and at < stored.resolved_at + KEEP_SECONDS
    ):
        return stored
    return Resolved(policy.repository, policy.channel, release.version, release.digest, at)


def recall_lookup(policy: Policy) -> Lookup | None:
    """What the operator last made known of its lookup: enough for a dry run, as long as the rollout is of it.

    None where nothing is known: the policy has changed since, or the operator has not looked yet.
    """
    rollout, condition = policy.rollout, policy.conditions.get(RESOLVED_CONDITION)
    known = rollout is not None and is_current(policy, rollout, None)
    release = rollout.release if rollout is not None and known else None
    fault = None
    if condition is not None and condition.generation == policy.generation and condition.reason in FAULTS:
        fault = Fault(condition.reason, condition.message)
    return Lookup(release, fault=fault) if release is not None or fault is not None else None


def judge_resolution(progress: Progress, lookup: Lookup | None, now: float) -> tuple[bool, str, str]:
    """The condition: whether it holds, its reason, and a sentence that does not change from lookup to lookup."""
    policy = progress.policy
    if lookup is None:
        known = policy.conditions.get(RESOLVED_CONDITION)
        if known is not None and progress.unresolved is None:
            # A new leader has not looked yet: what the last one said stays true until it has.
            return known.status == "True", known.reason, known.message
        return False, str(Reason.RELEASE_UNRESOLVED), LOOKING_UP
    if lookup.fault is not None:
        return False, lookup.fault.reason, lookup.fault.message
    if lookup.release is None:
        return False, str(Reason.RELEASE_UNRESOLVED), LOOKING_UP
    if lookup.expires_at is not None and now >= lookup.expires_at - EXPIRY_WARNING_SECONDS:
        until = format_instant(lookup.expires_at)
        sentence = f"the metadata of {policy.repository} expires at {until}; nothing is started after that until it is"
        return True, str(Reason.METADATA_EXPIRING), f"{sentence} signed again"
    return True, str(Reason.RESOLVED), describe_release(policy.channel, lookup.release)


def describe_release(channel: str | None, release: Release | Resolved) -> str:
    """Channel, if it is one, version and the beginning of the digest: `stable → 2.0.0 (sha256:0123456789ab)`."""
    named = f"{channel} → {release.version}" if channel is not None else release.version
    return f"{named} ({shorten_digest(release.digest)})"


def shorten_digest(digest: str) -> str:
    """As much of a digest as people compare."""
    return digest[: len("sha256:") + 12]


def tell_resolution(policy: Policy, reason: str, message: str) -> tuple[Turn, ...]:
    """The Event that a new reason of the condition is worth."""
    known = policy.conditions.get(RESOLVED_CONDITION)
    before = known.reason if known is not None else None
    if reason == before:
        return ()
    if reason in TROUBLES:
        return (Turn("UpdatePolicy", policy.name, policy.uid, reason, message, warning=True),)
    if reason == Reason.RESOLVED and before in FAULTS:
        return (Turn("UpdatePolicy", policy.name, policy.uid, RESOLVED_CONDITION, message),)
    return ()


def next_warning(lookup: Lookup, now: float) -> float | None:
    """When the condition begins to warn, if nothing else happens before."""
    if lookup.expires_at is None:
        return None
    at = lookup.expires_at - EXPIRY_WARNING_SECONDS
    return at if at > now else None
