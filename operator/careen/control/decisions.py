"""The decision log: one line for each decision, with the machine or object, its policy, and the reason in words."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from careen.core.actions import (
    Action,
    Cordon,
    CreateNode,
    DeleteNode,
    Evict,
    Explanation,
    RekeyNode,
    SetOrder,
    SetUnits,
    Uncordon,
    WriteLock,
    WriteNote,
    WriteOutcome,
    WritePolicy,
    WriteUnit,
)

logger = logging.getLogger(__name__)

Fields = dict[str, object]


def log_decision(action: Action, told: Mapping[str, Explanation]) -> None:
    """Log an action that the plan has asked for. told: the plan's explanations by machine."""
    fields = describe_decision(action, told)
    if fields is not None:
        logger.info("decision", extra=fields)


def describe_decision(action: Action, told: Mapping[str, Explanation]) -> Fields | None:
    """The fields of an action's line; None for what only repeats itself: a policy's counts."""
    decided: Fields = {"decision": type(action).__name__}
    match action:
        case WriteLock():
            if not (action.granted or action.freed):
                return None
            return decided | {"lock": action.name, "granted": action.granted, "freed": action.freed}
        case WritePolicy():
            if not action.turns:
                return None
            turns = {"reason": action.turns[0].reason, "why": "; ".join(turn.message for turn in action.turns)}
            return decided | {"policy": action.name} | turns
        case WriteUnit():
            return _describe_unit(decided, action)
        case SetUnits():
            held = [f"{each.name} {each.desired}" for each in action.holdings]
            return decided | _name(action.name, told) | {"units": held}
        case WriteNote():
            note = action.note
            return (
                decided | _name(action.name, told) | {"state": note.state, "reason": note.reason, "why": note.message}
            )
        case SetOrder():
            order = action.order
            which: Fields = {"order": order.id, "goal": order.goal, "rollout": order.rollout, "release": order.subject}
            given: Fields = {"policy": order.policy} if order.policy else {}
            return (
                decided | _explain(action.name, told) | given | which | ({"cause": order.cause} if order.cause else {})
            )
        case WriteOutcome():
            return decided | _explain(action.name, told) | {"outcome": action.outcome.outcome}
        case Evict():
            return decided | _explain(action.node, told) | {"pod": f"{action.namespace}/{action.name}"}
        case Cordon() | Uncordon() | CreateNode() | DeleteNode() | RekeyNode():
            return decided | _explain(action.name, told)


def _describe_unit(decided: Fields, action: WriteUnit) -> Fields | None:
    """A decision where a unit runs; None for what only tells what machines report."""
    if action.pace:
        return None
    places = [f"{place.node}{' (leaving)' if place.leaving else ''}" for place in action.state.placements or ()]
    row = next(row for row in action.state.conditions if row[0] == "Placed")
    return decided | {"unit": action.name, "places": places, "reason": row[2], "why": row[3]}


def _name(machine: str, told: Mapping[str, Explanation]) -> Fields:
    explanation = told.get(machine)
    policy: Fields = {"policy": explanation.policy} if explanation is not None and explanation.policy else {}
    return {"node": machine} | policy


def _explain(machine: str, told: Mapping[str, Explanation]) -> Fields:
    explanation = told.get(machine)
    if explanation is None:
        return {"node": machine}
    return _name(machine, told) | {"reason": explanation.reason, "why": explanation.message}
