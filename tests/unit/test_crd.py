"""The CRD generator, and what it makes of our models."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import Field

from careen.api import crd
from careen.api.admission import GARBAGE_COLLECTOR, OPERATOR_SPEC, OPERATOR_STATUS, agent_status
from careen.api.kinds import KINDS, Kind
from careen.api.meta import AGENT_USER, NAMESPACE, OPERATOR_USER, Model
from careen.api.node import NodeSpec, NodeStatus
from careen.api.policy import IntOrPercent
from careen.api.rules import ALLOWED, quote, rule, rules

FOLDER = Path(__file__).parents[2] / "crds"
SANDBOX = Path(crd.__file__).parents[1] / "sandbox"
Schema = dict[str, Any]


def field(annotation: Any, default: Any = ..., *, defaults: bool = True) -> Schema:
    """The schema that the generator makes of one field."""

    class Document(Model):
        value: annotation = default

    made: Schema = crd.build_schema(Document, defaults=defaults)["properties"]["value"]
    return made


class Inner(Model):
    """An inner object."""

    size: Annotated[int, Field(ge=0)] = 3
    """Size."""


class Loop(Model):
    """An object in itself."""

    again: "Loop | None" = None
    """The same again."""


def test_the_committed_files_are_what_the_models_say() -> None:
    files = crd.render_files()
    assert {path.name for path in FOLDER.iterdir()} == set(files)
    for name, content in files.items():
        assert (FOLDER / name).read_text() == content, f"{name} is not up to date: make crds"


def test_the_files_are_the_same_each_time(tmp_path: Path) -> None:
    crd.main([str(tmp_path / "new")])
    assert {path.name: path.read_text() for path in (tmp_path / "new").iterdir()} == crd.render_files()


def test_without_a_folder_all_documents_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    crd.main([])
    kinds = [each["kind"] for each in yaml.safe_load_all(capsys.readouterr().out)]
    assert kinds.count("CustomResourceDefinition") == len(KINDS)
    assert kinds.count("ValidatingAdmissionPolicy") == kinds.count("ValidatingAdmissionPolicyBinding") == 6


def test_optional_is_absent_and_never_null() -> None:
    class Document(Model):
        must: bool
        may: Annotated[int, Field(le=9)] | None = None

    made = crd.build_schema(Document, defaults=True)
    assert made["required"] == ["must"]
    assert made["properties"]["may"] == {"type": "integer", "maximum": 9}


def test_an_object_is_put_in_place_with_the_fields_own_description() -> None:
    class Document(Model):
        inner: Inner
        """Words of the field."""
        many: Annotated[list[Inner], Field(max_length=2)]

    made = crd.build_schema(Document, defaults=True)["properties"]
    assert made["inner"]["description"] == "Words of the field."
    assert made["inner"]["properties"]["size"] == {
        "description": "Size.",
        "type": "integer",
        "default": 3,
        "minimum": 0,
    }
    assert made["many"]["items"]["description"] == "An inner object."


def test_one_word_is_an_enum() -> None:
    assert field(Literal["Halt"], "Halt") == {"type": "string", "enum": ["Halt"], "default": "Halt"}


def test_exclusive_limits_are_flags() -> None:
    assert field(Annotated[int, Field(gt=0, lt=9)]) == {
        "type": "integer", "minimum": 0, "exclusiveMinimum": True, "maximum": 9, "exclusiveMaximum": True,
    }  # fmt: skip


def test_a_pattern_with_words_becomes_a_rule_with_words() -> None:
    allowed = Field(pattern="^[a-z]+$", max_length=9, json_schema_extra={ALLOWED: "lower-case letters"})
    assert field(Annotated[str, allowed]) == {
        "type": "string",
        "maxLength": 9,
        "x-kubernetes-validations": [{"rule": "self.matches(r'^[a-z]+$')", "message": "must be lower-case letters"}],
    }


def test_a_pattern_without_words_stays() -> None:
    assert field(Annotated[str, Field(pattern="^a$", max_length=1)])["pattern"] == "^a$"


def test_an_amount_is_a_number_or_a_percentage() -> None:
    made = field(IntOrPercent, 1)
    assert made["x-kubernetes-int-or-string"] is True
    assert made["anyOf"] == [{"type": "integer"}, {"type": "string"}]
    assert made["default"] == 1
    assert "type" not in made
    assert len(made["x-kubernetes-validations"]) == 1


def test_a_map_has_bounded_keys_and_values() -> None:
    text = Annotated[str, Field(max_length=5)]
    made = field(Annotated[dict[text, text], Field(max_length=2)])
    assert made["additionalProperties"] == {"type": "string", "maxLength": 5}
    assert made["maxProperties"] == 2
    assert "propertyNames" not in made
    assert made["x-kubernetes-validations"][0]["message"] == "keys must be 1 to 5 characters long"


def test_an_objects_default_is_empty_for_its_fields_have_their_own() -> None:
    assert field(Inner, Inner())["default"] == {}


def test_status_has_no_defaults() -> None:
    made = field(Inner, Inner(), defaults=False)
    assert "default" not in made
    assert "default" not in made["properties"]["size"]


def test_rules_of_a_model_and_of_its_field_add_up() -> None:
    class Ruled(Model, json_schema_extra=rules(rule("self.a", "inner"))):
        a: bool

    extra = Field(json_schema_extra=rules(rule("!self.a", "outer", field=".a", message_expression="'x'")))
    assert field(Annotated[Ruled, extra])["x-kubernetes-validations"] == [
        {"rule": "self.a", "message": "inner"},
        {"rule": "!self.a", "message": "outer", "fieldPath": ".a", "messageExpression": "'x'"},
    ]


def test_line_breaks_of_the_source_are_not_shown() -> None:
    class Document(Model):
        value: bool
        """One
        sentence.

        Another."""

    made = crd.build_schema(Document, defaults=True)
    assert made["properties"]["value"]["description"] == "One sentence.\n\nAnother."


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (list[int], "Document.value: each list, map and string needs max_length"),
        (str, "Document.value: each list, map and string needs max_length"),
        (dict[str, int], "Document.value: each list, map and string needs max_length"),
        (Annotated[list[str], Field(max_length=1)], r"Document.value\[\]: each list"),
        (int | bool, "Document.value: a union of 2 types"),
        (tuple[int, bool], "'prefixItems' has no place in a structural schema"),
        (Loop, "Document.value.again: Loop contains itself"),
    ],
)
def test_what_a_structural_schema_cant_say_is_an_error(annotation: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        field(annotation)


def test_a_rule_text_that_needs_escapes_is_an_error() -> None:
    with pytest.raises(ValueError, match="raw CEL string"):
        quote("it's")


def walk(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from walk(inner, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from walk(schema[key], f"{path}[]")


def fields(kind: Kind) -> Iterator[tuple[str, Schema]]:
    root = crd.build_crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for part in ("spec", "status"):
        yield from walk(root["properties"][part], f"{kind.kind}.{part}")


EVERY_FIELD = [pytest.param(path, schema, id=path) for kind in KINDS for path, schema in fields(kind)]
OPERATOR_PATHS = tuple(f"Node.spec.{name}" for name in OPERATOR_SPEC)
WISHES = [each for each in EVERY_FIELD if ".spec" in str(each.id) and not str(each.id).startswith(OPERATOR_PATHS)]


@pytest.mark.parametrize(("path", "schema"), EVERY_FIELD)
def test_every_field_is_described_and_bounded(path: str, schema: Schema) -> None:
    if not path.endswith("[]"):
        assert schema.get("description", "").endswith((".", "?"))
    if schema.get("type") == "string":
        assert "maxLength" in schema or "enum" in schema
    if schema.get("type") == "array":
        assert "maxItems" in schema
        assert schema["x-kubernetes-list-type"] in ("map", "set", "atomic")
    if "additionalProperties" in schema:
        assert "maxProperties" in schema
    assert "title" not in schema
    assert not [key for key in schema if key.startswith("x-careen")]


@pytest.mark.parametrize(("path", "schema"), WISHES)
def test_every_default_of_a_wish_is_told(path: str, schema: Schema) -> None:
    default = schema.get("default", {})
    if default != {}:
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        assert schema["description"].replace("`", "").endswith(f"Default {shown}.")


@pytest.mark.parametrize(("path", "schema"), EVERY_FIELD)
def test_every_rule_says_what_is_allowed(path: str, schema: Schema) -> None:
    for each in schema.get("x-kubernetes-validations", []):
        assert any(word in each["message"] for word in ("must", "at most"))
        if "fieldPath" in each:
            assert each["fieldPath"].removeprefix(".") in schema["properties"]


def test_durations_are_whole_seconds() -> None:
    for kind in KINDS:
        for path, schema in fields(kind):
            if path.endswith("Seconds"):
                assert schema["type"] == "integer", path
                assert "maximum" in schema, path


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_columns_and_selectable_fields_name_fields_that_exist(kind: Kind) -> None:
    known = {path.partition(".")[2].replace("[]", "") for path, _ in fields(kind)}
    plain = [column.path for column in kind.columns if "[?" not in column.path and "metadata" not in column.path]
    for path in (*plain, *kind.selectable):
        assert path.removeprefix(".").replace("[0]", "") in known


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_status_is_a_subresource_with_conditions_by_type(kind: Kind) -> None:
    document = crd.build_crd(kind)
    assert document["spec"]["scope"] == "Cluster"
    assert document["spec"]["names"]["categories"] == ["careen"]
    assert document["spec"]["versions"][0]["subresources"] == {"status": {}}
    conditions = dict(fields(kind))[f"{kind.kind}.status.conditions"]
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


def test_each_field_of_a_node_has_one_writer() -> None:
    names = {info.alias or name for name, info in NodeStatus.model_fields.items()}
    assert set(OPERATOR_STATUS) | set(agent_status()) == names
    assert not set(OPERATOR_STATUS) & set(agent_status())
    assert set(OPERATOR_SPEC) <= {info.alias for info in NodeSpec.model_fields.values()}


def test_the_policies_name_the_accounts_in_full() -> None:
    text = crd.render_files()["admission.yaml"]
    for user in (OPERATOR_USER, AGENT_USER, GARBAGE_COLLECTOR):
        assert f"'{user}'" in text.replace("''", "'")
    policies = [each for each in yaml.safe_load_all(text) if each["kind"] == "ValidatingAdmissionPolicy"]
    bindings = [each for each in yaml.safe_load_all(text) if each["kind"] == "ValidatingAdmissionPolicyBinding"]
    assert all(each["spec"]["failurePolicy"] == "Fail" for each in policies)
    assert all(each["spec"]["validationActions"] == ["Deny"] for each in bindings)
    assert [each["spec"]["policyName"] for each in bindings] == [each["metadata"]["name"] for each in policies]


def roles() -> dict[tuple[str, str], list[Schema]]:
    documents = yaml.safe_load_all((SANDBOX / "rbac.yaml").read_text())
    return {(each["kind"], each["metadata"]["name"]): each.get("rules", []) for each in documents}


def test_the_accounts_are_those_that_the_policies_name() -> None:
    found = roles()
    assert ("Namespace", NAMESPACE) in found
    for user in (OPERATOR_USER, AGENT_USER):
        assert ("ServiceAccount", user.rpartition(":")[2]) in found
        assert ("ClusterRoleBinding", user.rpartition(":")[2]) in found


def test_people_have_no_status_in_an_aggregated_role() -> None:
    granted = [resource for each in roles()[("ClusterRole", "careen-edit")] for resource in each["resources"]]
    assert granted == ["updatepolicies", "nodes"]


def test_units_are_in_no_role_that_is_aggregated_but_to_be_read() -> None:
    """Whoever writes a Unit is root on the machines."""
    for (kind, name), granted in roles().items():
        verbs = {verb for each in granted if "units" in each["resources"] for verb in each["verbs"]}
        if name != "careen-unit-admin":
            assert verbs <= {"get", "list", "watch"}, (kind, name)
    agent = [each["verbs"] for each in roles()[("ClusterRole", "careen-agent")] if "units" in each["resources"]]
    assert agent == [["get"]]


def test_no_account_has_a_wildcard() -> None:
    for each in roles().values():
        for granted in each:
            assert "*" not in [*granted["apiGroups"], *granted["resources"], *granted["verbs"]]
