"""The chart's files that are made from elsewhere are up to date, and each value is described."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

import chartfiles
from careen import __version__

CRDS = Path(__file__).parents[2] / "crds"


def test_the_committed_files_are_what_is_made() -> None:
    for path, content in chartfiles.render_files().items():
        assert path.read_text() == content, f"{path.name} is not up to date: make crds"


def test_each_value_is_described_in_a_sentence() -> None:
    text = (chartfiles.CHART / "values.yaml").read_text()
    comments = dict(chartfiles.read_comments(text))
    for path, _ in chartfiles.list_leaves(yaml.safe_load(text)):
        assert comments[path].endswith("."), path


def test_each_constraint_is_of_a_value_that_is_there() -> None:
    values = yaml.safe_load((chartfiles.CHART / "values.yaml").read_text())
    leaves = {path for path, _ in chartfiles.list_leaves(values)}
    assert set(chartfiles.CONSTRAINTS) | chartfiles.FREE <= leaves


def test_the_kinds_are_those_of_crds() -> None:
    for path in CRDS.glob("*.careen.dev.yaml"):
        made = (chartfiles.CHART / "templates" / f"crd-{path.name.partition('.')[0]}.yaml").read_text()
        plain = re.sub(r"^ *\{\{-.*\}\}\n", "", made, flags=re.MULTILINE)
        plain = plain.replace("  annotations:\n    helm.sh/resource-policy: keep\n", "", 1)
        assert yaml.safe_load(plain) == yaml.safe_load(path.read_text())


def test_the_schema_allows_nothing_else() -> None:
    schema = json.loads((chartfiles.CHART / "values.schema.json").read_text())
    assert schema["additionalProperties"] is False
    assert schema["properties"]["agent"]["additionalProperties"] is False


def test_the_chart_is_of_the_version_that_it_installs() -> None:
    about = yaml.safe_load((chartfiles.CHART / "Chart.yaml").read_text())
    assert (about["version"], about["appVersion"]) == (__version__, __version__)
