"""Which trusted release may be written to which machine."""

from __future__ import annotations

from typing import Any

import pytest

from careen.agent.record import Fault
from careen.agent.staging.admission import Running, admit_release
from careen.api.meta import PROTOCOL
from careen.release.manifest import ReleaseDocument
from stagings import make_blocks, make_release

IMAGE = make_release(make_blocks(2)).image


def judge(document: dict[str, Any], running: dict[str, Any], *, downgrade: bool = False) -> str:
    """The refusal; empty if there is none."""
    fields = {"version": "2.0.0", "product": "os", "images": {"x86_64": IMAGE}} | document
    known = {"version": "1.0.0", "product": "os", "state_version": 1} | running
    machine = Running("x86_64", 1 << 20, **known)
    found = admit_release(
        ReleaseDocument.model_validate({"stateVersion": 1} | fields), machine, allow_downgrade=downgrade
    )
    return f"{found.class_}: {found.message}" if isinstance(found, Fault) else ""


@pytest.mark.parametrize(
    ("document", "running", "words"),
    [
        ({}, {}, ""),
        ({"product": "other"}, {}, "Refused: release 2.0.0 is of the product other; this machine runs os"),
        ({"product": "other"}, {"product": None}, ""),
        ({"stateVersion": 0}, {}, "reads data of version 0; the data here have version 1"),
        ({"stateVersion": 0}, {"state_version": None}, ""),
        ({"agentProtocol": PROTOCOL + 2}, {}, "has an agent of protocol"),
        ({"minVersion": "1.5"}, {}, "can be reached from 1.5 on; this machine runs 1.0.0"),
        ({"minVersion": "1.5"}, {"version": None}, "can be reached from 1.5 on; which version runs here is not known"),
        ({}, {"version": "3"}, "is older than 3, which runs here"),
        ({}, {"version": None}, "may be older than what runs here, which is not known"),
    ],
)
def test_what_does_not_fit_is_refused_and_says_why(
    document: dict[str, Any], running: dict[str, Any], words: str
) -> None:
    found = judge(document, running)
    assert words in found
    assert bool(found) == bool(words)


@pytest.mark.parametrize("running", [{"version": "3"}, {"version": None}])
def test_leave_to_go_back_waives_the_order_of_versions_and_nothing_else(running: dict[str, Any]) -> None:
    assert judge({}, running, downgrade=True) == ""
    assert judge({"minVersion": "4"}, running, downgrade=True)
    assert judge({"product": "other"}, running, downgrade=True)
    assert judge({"stateVersion": 0}, running, downgrade=True)
