"""The Unit kind: its schema can be made, is bounded and described, and fits what reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
from pydantic import ValidationError

from careen.api import crd, unit
from careen.api.kinds import UNIT
from careen.api.requirements import Requirements
from careen.api.rules import RULES
from careen.api.unit import TEMPLATE_PATTERN, TEMPLATE_TYPES, UNIT_NAME_PATTERN, UNIT_TYPES, Placement, UnitSpec
from careen.units.file import MOST_BYTES
from careen.units.names import SUFFIXES, TEMPLATE_SUFFIXES, check_name, split_name
from careen.units.reading import check_unit, read_placement
from careen.units.wishes import MOST_WISHES, WIRE

Schema = dict[str, Any]
CONTENT = "[Service]\nExecStart=/bin/true\n"
ROOT: Schema = crd.build_crd(UNIT)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
FULL: Schema = {
    "machineMetadata": {"region": ["eu", "us"]},
    "machineOf": ["db.service"],
    "conflicts": ["web@*.service"],
    "weight": 3,
    "maxPerMachine": 2,
    "avoids": ["batch*"],
    "spread": "zone",
    "surge": True,
    "interruptible": True,
}


def walk(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from walk(inner, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from walk(schema[key], f"{path}[]")


FIELDS = [each for part in ("spec", "status") for each in walk(ROOT["properties"][part], f".{part}")]


@pytest.mark.parametrize(("path", "schema"), FIELDS, ids=[path for path, _ in FIELDS])
def test_every_field_is_described_and_bounded(path: str, schema: Schema) -> None:
    if not path.endswith("[]"):
        assert schema.get("description", "").endswith(".")
    if schema["type"] == "string":
        assert "maxLength" in schema or "enum" in schema
    if schema["type"] == "integer":
        assert "minimum" in schema
    if schema["type"] == "array":
        assert "maxItems" in schema
        assert schema["x-kubernetes-list-type"] in ("map", "set")
    if "additionalProperties" in schema:
        assert "maxProperties" in schema
    default = schema.get("default", {})
    if default != {}:
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        assert schema["description"].endswith(f"Default {shown}.")
    for each in schema.get("x-kubernetes-validations", []):
        assert "must" in each["message"]


def test_columns_and_selectable_fields_name_fields_that_exist() -> None:
    known = {path.replace("[]", "") for path, _ in FIELDS}
    plain = [column.path for column in UNIT.columns if "[?" not in column.path and "metadata" not in column.path]
    assert [path for path in (*plain, *UNIT.selectable) if path.replace("[0]", "") not in known] == []


def test_a_new_unit_is_inactive_and_replaced_when_its_machine_is_silent() -> None:
    spec = UnitSpec.model_validate({"content": CONTENT})
    assert (spec.desired_state, spec.on_silence, spec.placement) == ("inactive", "Replace", None)
    shown = ROOT["properties"]["spec"]["properties"]
    assert shown["desiredState"]["default"] == "inactive"
    assert "default" not in shown["placement"]


def test_every_requirement_is_a_field_of_placement_and_none_is_lost() -> None:
    assert set(WIRE) == {field.name for field in fields(Requirements)}
    assert set(WIRE.values()) == set(ROOT["properties"]["spec"]["properties"]["placement"]["properties"])
    wanted = read_placement(Placement.model_validate(FULL).dump(), split_name("web@1.service"))
    assert wanted == Requirements(
        machine_metadata=(("region", ("eu", "us")),),
        machine_of=("db.service",),
        conflicts=("web@*.service",),
        weight=3,
        max_per_machine=2,
        avoids=("batch*",),
        spread="zone",
        surge=True,
        interruptible=True,
    )
    for name, value in (("machineID", "m"), ("global", True), ("replaces", ["a.service"])):
        assert check_unit("a.service", CONTENT, Placement.model_validate({name: value}).dump()).requirements != (
            Requirements()
        )


def test_what_nobody_asked_for_asks_for_nothing() -> None:
    assert read_placement(Placement().dump(), split_name("a.service")) == Requirements()
    text = CONTENT + "[X-Fleet]\nConflicts=b.service\n"
    assert check_unit("a.service", text, Placement().dump()).errors == ()


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"content": ""},
        {"content": "x" * (MOST_BYTES + 1)},
        {"content": CONTENT, "name": "web"},
        {"content": CONTENT, "desiredState": "running"},
        {"content": CONTENT, "placement": {"conflicts": []}},
        {"content": CONTENT, "placement": {"conflicts": ["a b"]}},
        {"content": CONTENT, "placement": {"weight": -1}},
        {"content": CONTENT, "placement": {"maxPerMachine": 0}},
    ],
)
def test_what_is_out_of_bounds_is_refused(spec: Schema) -> None:
    with pytest.raises(ValidationError):
        UnitSpec.model_validate(spec)


NAMES = [
    "web.service", "web@1.service", "web@.service", "a@b@c.service", ".service", "a..b.timer", "A:_-.\\x.mount",
    "a.slice", "web", "web.", "web.txt", "@web.service", "@.service", "web@1.mount", "a b.service", "a/b.service",
    "web.service.d", "a@b.target", "é.service", "", "web.service\n",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_api_server_takes_the_names_that_fleet_took(name: str) -> None:
    # \Z: Python's $ is before a last line break too, CEL's is not.
    fits = re.match(UNIT_NAME_PATTERN.removesuffix("$") + r"\Z", name) is not None
    assert fits == (check_name(name) is None)
    if fits:
        assert (re.match(TEMPLATE_PATTERN, name) is not None) == split_name(name).is_template


def test_an_objects_name_that_is_a_units_is_enough() -> None:
    said = ROOT[RULES][0]["rule"]
    assert re.findall(r"endsWith\('\.(\w+)'\)", said) == list(SUFFIXES) == list(UNIT_TYPES)
    assert TEMPLATE_TYPES == TEMPLATE_SUFFIXES


def test_the_limits_are_the_same_in_both() -> None:
    assert (unit.MOST_WISHES, unit.MOST_CONTENT) == (MOST_WISHES, MOST_BYTES)


def test_the_same_pairs_are_refused_in_both() -> None:
    messages = {each["message"] for each in ROOT["properties"]["spec"]["properties"]["placement"][RULES]}
    pairs = {frozenset(message.split(" must")[0].split(" and ")) for message in messages}
    values = {
        "machineID": "m", "machineOf": ["a.service"], "conflicts": ["b.service"], "replaces": ["c.service"],
        "global": True,
    }  # fmt: skip
    refused = {
        frozenset((one, other))
        for one in values
        for other in values
        if one < other and check_unit("x.service", CONTENT, {one: values[one], other: values[other]}).errors
    }
    assert pairs == refused
    assert len(pairs) == 7
