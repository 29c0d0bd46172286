"""What people call a unit, and what its object is called."""

from __future__ import annotations

import re

import pytest

from careen.units.names import SUFFIXES, complete_name, name_object


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("web", "web.service"),
        ("web@1", "web@1.service"),
        ("web.socket", "web.socket"),
        ("shared.target", "shared.target"),
        ("web.conf", "web.conf.service"),
        ("service", "service.service"),
    ],
)
def test_what_has_no_type_is_a_service(word: str, name: str) -> None:
    assert complete_name(word) == name


@pytest.mark.parametrize("name", ["web.service", "a.b-c.timer", "0.socket"])
def test_a_name_that_an_object_may_have_is_its_name(name: str) -> None:
    assert name_object(name) == name


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("web@1.service", "web-1.service-"),
        ("Web.service", "web.service-"),
        ("web-.service", "web.service-"),
        ("a_b:c.mount", "a-b-c.mount-"),
        (".service", "service-"),
        ("web.1..service", "web.1.service-"),
        ("dev-disk\\x2dby.swap", "dev-disk-x2dby.swap-"),
        ("x" * 246 + "@a.service", "x" * 200 + "-"),
    ],
)
def test_others_are_called_by_what_can_be_kept_and_a_hash(name: str, stem: str) -> None:
    made = name_object(name)
    assert re.fullmatch(re.escape(stem) + "[0-9a-f]{10}", made)
    # As the API server has it, and never the name of a unit that is called so itself.
    label = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
    assert re.fullmatch(rf"{label}(\.{label})*", made)
    assert len(made) <= 253
    assert not made.endswith(tuple(f".{each}" for each in SUFFIXES))


def test_names_that_look_alike_are_told_apart() -> None:
    names = ["web@1.service", "web_1.service", "Web-1.service", "web:1.service", "web-1.service"]
    assert len({name_object(name) for name in names}) == len(names)
