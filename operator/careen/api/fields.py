"""docs/fields.md, made from the same schemas as the CRDs: `make crds` writes it, a test compares it."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .admission import OPERATOR_SPEC, OPERATOR_STATUS
from .crd import INT_OR_STRING, build_crd
from .kinds import KINDS, NODE, REBOOT_LOCK, UNIT, UPDATE_POLICY, Kind
from .meta import (
    API_VERSION,
    CONTROL_PLANE_LABEL,
    CORDONED_ANNOTATION,
    NAMESPACE,
    RESUME_ANNOTATION,
    SWITCH_CONFIGMAP,
    SWITCH_KEY,
)
from .rules import RULES

Schema = Mapping[str, Any]

WRITERS = {
    (NODE.kind, "spec"): f"{', '.join(OPERATOR_SPEC)}: the operator. All else: people.",
    (NODE.kind, "status"): f"{', '.join(OPERATOR_STATUS)}: the operator. All else: the agent of that machine.",
    (UPDATE_POLICY.kind, "spec"): "People.",
    (UPDATE_POLICY.kind, "status"): "The operator.",
    (REBOOT_LOCK.kind, "spec"): "People; `careen lock set-max` sets max.",
    (REBOOT_LOCK.kind, "status"): "The operator, and people through `careen lock`.",
    (UNIT.kind, "spec"): "People; `careen unit` writes it. Whoever may is root on the machines.",
    (UNIT.kind, "status"): "The operator.",
}
"""Who writes which part of which kind; the admission policies enforce what is said of Node and UpdatePolicy."""

HEAD = f"""# Every field

All kinds are cluster-scoped, of `{API_VERSION}` and in the category `careen` (`kubectl get careen`). Made by `make crds` from
the models; a test compares them. `kubectl explain updatepolicy.spec --recursive` shows the same of a cluster.

A field without a default and not marked as required may be absent. Times are RFC 3339 in UTC, durations are whole seconds
and say so in their names. Fields that a reader does not know are ignored.

## Other names

| name | where | meaning |
| --- | --- | --- |
| `{SWITCH_KEY}` | ConfigMap `{SWITCH_CONFIGMAP}` in the install's namespace (`{NAMESPACE}`) | `"true"` stops everything new in the whole cluster; see [stop](stop.md) |
| `{RESUME_ANNOTATION}` | annotation of an UpdatePolicy | `ROLLOUT/N`: people have seen N failures of this rollout; `careen resume` sets it |
| `{CORDONED_ANNOTATION}` | annotation of a core Node | the order that the operator made the Node unschedulable for; it makes schedulable only what carries it |
| `{CONTROL_PLANE_LABEL}` | label of a core Node | such machines are activated one at a time, over all policies |
"""  # noqa: E501

TABLE = "| field | type | default | meaning |\n| --- | --- | --- | --- |\n"


def describe_fields() -> str:
    """The page."""
    return "\n".join([HEAD, *(_describe_kind(kind) for kind in KINDS)])


def _describe_kind(kind: Kind) -> str:
    schema = build_crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    names = f"`{kind.plural}.{kind.crd_name.partition('.')[2]}`, short `{', '.join(kind.short_names)}`"
    parts = [f"## {kind.kind}\n\n{schema['description']} Plural {names}.{_tell_rules(schema)}\n"]
    for part in ("spec", "status"):
        own = schema["properties"][part]
        rows = "\n".join(_describe(own, ""))
        parts.append(
            f"### {kind.kind} {part}\n\nWritten by: {WRITERS[kind.kind, part]}{_tell_rules(own)}\n\n{TABLE}{rows}\n"
        )
    return "\n".join(parts)


def _describe(schema: Schema, above: str) -> Iterator[str]:
    """A row for each field below this schema, and then for those below it."""
    required = schema.get("required", ())
    for name, field in schema["properties"].items():
        path = f"{above}{name}"
        default = "required" if name in required else _tell_default(field)
        meaning = f"{field.get('description', '')}{_tell_rules(field)}{_tell_rules(field.get('items', {}))}".strip()
        cells = (f"`{path}`", _tell_type(field), default, meaning)
        yield "| " + " | ".join(_escape(cell) for cell in cells) + " |"
        inner, ending = (field["items"], "[].") if field.get("type") == "array" else (field, ".")
        if "properties" in inner:
            yield from _describe(inner, path + ending)


def _tell_type(field: Schema) -> str:
    if field.get(INT_OR_STRING):
        return "number or percentage"
    if "enum" in field:
        return "one of " + ", ".join(map(str, field["enum"]))
    if field["type"] == "array":
        return f"list, at most {field['maxItems']}, of {_tell_type(field['items'])}"
    if "additionalProperties" in field:
        return f"map, at most {field['maxProperties']}"
    if field.get("format") == "date-time":
        return "time"
    return f"{field['type']}{_tell_bounds(field)}"


def _tell_bounds(field: Schema) -> str:
    low, high = field.get("minimum"), field.get("maximum")
    if low is not None and high is not None:
        return f", {low} to {high}"
    if low is not None:
        return f", at least {low}"
    return f", at most {field['maxLength']} characters" if "maxLength" in field else ""


def _tell_default(field: Schema) -> str:
    if "default" not in field or field["default"] == {}:
        return ""
    default = field["default"]
    return str(default).lower() if isinstance(default, bool) else str(default)


def _tell_rules(schema: Schema) -> str:
    told = [each["message"] for each in schema.get(RULES, ())]
    return "".join(f" Rule: {message}." for message in told)


def _escape(cell: str) -> str:
    """A table's cell: neither its end nor a new line in it."""
    return " ".join(cell.replace("|", "\\|").split())


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(describe_fields(), encoding="utf-8")
