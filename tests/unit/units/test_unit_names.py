"""Names of units: the errors in fleet's words and order, and the parts."""

from __future__ import annotations

import pytest

from careen.units.names import check_activation, check_name, split_name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "unit name cannot be empty"),
        ("x" * 257, "unit name exceeds maximum length (256)"),
        ("é" * 124 + ".service.", "unit name exceeds maximum length (256)"),
        ("web", 'unit name must contain "."'),
        ("é", 'unit name must contain "."'),
        ("web.", 'unit name cannot end in "."'),
        ("é.txt", 'invalid unit type: "txt"'),
        ("a.service.d", 'invalid unit type: "d"'),
        ('a."x', 'invalid unit type: "\\"x"'),
        ("@é.mount", 'invalid unit type for template: "mount"'),
        ("@é.service", "invalid character 'é' in unit name"),
        ("a b.service", "invalid character ' ' in unit name"),
        ("a/b.service", "invalid character '/' in unit name"),
        ("a'b.service", "invalid character '\\'' in unit name"),
        ("@web.service", 'unit name cannot start in "@"'),
    ],
)
def test_a_bad_name_is_refused_with_these_words(name: str, words: str) -> None:
    assert check_name(name) == words


@pytest.mark.parametrize(
    "name",
    [
        "web.service", ".service", "x@.service", "a@b@c.service", "a..b.timer", "A:_-.\\x2d.mount",
        "x" * 248 + ".service",
        *(f"a.{suffix}" for suffix in (
            "automount", "busname", "device", "mount", "path", "scope", "service", "slice", "snapshot", "socket",
            "swap", "target", "timer",
        )),
    ],
)  # fmt: skip
def test_good_names(name: str) -> None:
    assert check_name(name) is None


@pytest.mark.parametrize("suffix", ["path", "service", "socket", "target", "timer"])
def test_these_types_may_be_templates(suffix: str) -> None:
    assert check_name(f"foo@.{suffix}") is None


@pytest.mark.parametrize("suffix", ["mount", "automount", "swap", "device", "slice", "scope", "busname", "snapshot"])
def test_these_types_may_not(suffix: str) -> None:
    assert check_name(f"foo@.{suffix}") == f'invalid unit type for template: "{suffix}"'


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("foo.service", ("foo", "foo", "", "service", None)),
        ("foo@bar.service", ("foo@bar", "foo", "bar", "service", "foo@.service")),
        ("foo@.service", ("foo@", "foo", "", "service", "foo@.service")),
        ("a@b@c.d.timer", ("a@b@c.d", "a", "b@c.d", "timer", "a@.timer")),
        (".service", ("", "", "", "service", None)),
    ],
)
def test_parts(name: str, parts: tuple[str, ...]) -> None:
    found = split_name(name)
    assert (found.stem, found.prefix, found.instance, found.suffix, found.template) == parts
    assert found.full == name


def test_only_instances_of_a_template_can_run() -> None:
    assert split_name("foo@.service").is_template
    assert not split_name("foo@1.service").is_template
    assert split_name("foo@1.service").is_instance
    assert not split_name("foo.service").is_instance
    for state in ("loaded", "launched"):
        assert check_activation(split_name("foo@.service"), state) == 'cannot activate template "foo@.service"'
        assert check_activation(split_name("foo@1.service"), state) is None
    assert check_activation(split_name("foo@.service"), "inactive") is None
