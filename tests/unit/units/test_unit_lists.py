"""`careen unit list-units`, `list-unit-files` and `list-machines`: fleet's columns."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from unit_api import CORE_NODES, NODES, UNITS, UnitApi, make_node

Careen = Callable[..., tuple[int, str, str]]
WEB = "[Unit]\nDescription=Web\n[Service]\nExecStart=/bin/web\n"
HASH = "7b5a8fd1f0a0b0f1a9e0b1d8b6f0e7c6a5d4c3b2"


@pytest.fixture(autouse=True)
def _cluster(api: UnitApi) -> None:
    running = {"hash": HASH, "load": "loaded", "active": "active", "sub": "running"}
    gone = {"load": "not-found", "active": "inactive", "sub": "dead"}
    m1 = [{"name": "web.service", **running}, {"name": "log.service", **running}, {"name": "old.service", **gone}]
    m2 = [{"name": "bad.service", **gone, "message": "another content"}]
    api.put(NODES, make_node("m2", machine_id="2a0b1c2d3e4f", units=m2))
    api.put(NODES, make_node("m1", machine_id="1a0b1c2d3e4f", metadata={"zone": "b", "disk": "ssd"}, units=m1))
    addresses = [{"type": "Hostname", "address": "h"}, {"type": "InternalIP", "address": "10.0.0.1"}]
    api.put(CORE_NODES, {"metadata": {"name": "m1", "labels": {"rack": "7"}}, "status": {"addresses": addresses}})
    api.put(UNITS, {
        "metadata": {"name": "web.service"}, "spec": {"content": WEB, "desiredState": "launched"},
        "status": {"currentState": "launched", "placements": [{"node": "m1"}]},
    })  # fmt: skip
    api.put(UNITS, {
        "metadata": {"name": "log"},
        "spec": {"name": "log.service", "content": f"{WEB}[X-Fleet]\nGlobal=yes\n", "desiredState": "launched"},
        "status": {"counts": {"placed": 2, "active": 1}},
    })  # fmt: skip
    why = {"type": "Stalled", "status": "True", "reason": "NoPlace", "message": "2 machines: silent"}
    api.put(UNITS, {
        "metadata": {"name": "bad.service"}, "spec": {"content": WEB, "desiredState": "launched"},
        "status": {"currentState": "inactive", "conditions": [why]},
    })  # fmt: skip


def test_list_units(careen: Careen) -> None:
    assert careen("list-units") == (
        0,
        (
            "UNIT          MACHINE       ACTIVE     SUB\n"
            "bad.service   m2            inactive   dead\n"
            "log.service   m1/10.0.0.1   active     running\n"
            "web.service   m1/10.0.0.1   active     running\n"
        ),
        "",
    )


def test_list_unit_files(careen: Careen) -> None:
    assert careen("list-unit-files")[1].splitlines() == [
        "UNIT          HASH      DSTATE     STATE      TARGET",
        "bad.service   5521349   launched   inactive   -",
        "log.service   5df9298   launched   1/2        global",
        "web.service   5521349   launched   launched   m1/10.0.0.1",
    ]


def test_list_machines(careen: Careen) -> None:
    assert careen("list-machines")[1].splitlines() == [
        "MACHINE   ID            IP         METADATA",
        "m1        1a0b1c2d...   10.0.0.1   disk=ssd,zone=b",
        "m2        2a0b1c2d...   -          -",
    ]


def test_full_shortens_nothing(careen: Careen) -> None:
    assert careen("list-machines", "-l", "m1")[1].splitlines()[1] == (
        "m1        1a0b1c2d3e4f   10.0.0.1   disk=ssd,rack=7,zone=b"
    )
    assert HASH in careen("list-units", "--full", "--fields", "unit,hash", "web")[1]


def test_fields_and_legend(careen: Careen) -> None:
    words = ("--no-legend", "--fields", "reason,unit,global,desc")
    assert careen("list-unit-files", *words, "bad*", "log")[1].splitlines() == [
        "NoPlace: 2 machines: silent   bad.service   false   Web",
        "-                             log.service   true    Web",
    ]
    assert careen("list-units", "--no-legend", "--fields=message", "bad.service")[1] == "another content\n"
    assert careen("list-machines", "--no-legend", "--fields=units")[1] == "2\n0\n"
    assert careen("list-units", "--no-legend", "nobody") == (0, "", "")


def test_an_unknown_field_is_wrong_usage(careen: Careen) -> None:
    code, _, err = careen("list-units", "--fields", "unit,tmachine")
    assert code == 2
    assert "invalid field 'tmachine'; allowed: unit, machine, active, sub, load, hash, message" in " ".join(
        err.replace("│", " ").split()
    )


def test_as_documents(careen: Careen) -> None:
    listed = json.loads(careen("list-units", "--json", "web")[1])
    assert listed == [
        {
            "unit": "web.service", "machine": "m1/10.0.0.1", "active": "active", "sub": "running", "load": "loaded",
            "hash": HASH, "message": "",
        }
    ]  # fmt: skip
    assert json.loads(careen("list-machines", "--json", "--fields", "id", "m2")[1]) == [{"id": "2a0b1c2d3e4f"}]


def test_who_may_not_see_core_nodes_sees_machines_all_the_same(api: UnitApi, careen: Careen) -> None:
    api.forbidden.add(CORE_NODES)
    assert careen("list-machines", "--no-legend", "m1")[:2] == (0, "m1   1a0b1c2d...   -   disk=ssd,zone=b\n")


def test_a_machine_that_is_not_there(careen: Careen) -> None:
    assert careen("list-machines", "m9")[::2] == (1, "careen: there is no machine m9\n")
