"""docs/fields.md is what the models say, and says it of every field."""

from pathlib import Path

from careen.api.fields import describe_fields
from careen.api.kinds import KINDS
from careen.api.policy import UpdatePolicySpec

PAGE = Path(__file__).parents[2] / "docs" / "fields.md"


def test_page_is_what_the_models_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == describe_fields(), "run `make crds`"


def test_every_kind_and_field_has_a_meaning() -> None:
    page = describe_fields()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert all(f"## {kind.kind}\n" in page for kind in KINDS)
    assert len(rows) > 150
    assert [row for row in rows if not row.rstrip("| ").rpartition("|")[2].strip()] == []


def test_a_row_says_type_bounds_default_and_rules() -> None:
    section = describe_fields().partition("### UpdatePolicy spec\n")[2].partition("### ")[0]
    rows = {line.split("`")[1]: line for line in section.splitlines() if line.startswith("| `")}
    assert "| integer, 1 to 604800 | 3600 |" in rows["drain.timeoutSeconds"]
    assert "| one of Rollback, Commit, Wait | Rollback |" in rows["boot.onSilence"]
    assert "Rule: release must have exactly one of channel, version and digest." in rows["release"]
    assert "| number or percentage | 1 |" in rows["strategy.maxUnavailable"]
    assert set(UpdatePolicySpec.model_json_schema(by_alias=True)["properties"]) <= set(rows)
