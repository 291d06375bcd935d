"""Variables in texts, and nothing but variables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.dialplan import template

VARIABLES = {"name": "Ada", "header.x-account": "42", "evil": "{name}"}


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("Hello {name}.", "Hello Ada."),
        ("{header.X-Account}", "42"),
        ("{{name}}", "{name}"),
        ("{{{name}}}", "{Ada}"),
        ("{evil}", "{name}"),
        ("{name.upper}", "{name.upper}"),
        ("{name!r}{name:>9}{0}{}{ name }", "{name!r}{name:>9}{0}{}{ name }"),
        ("a } b { c", "a } b { c"),
    ],
)
def test_only_names_are_replaced(text: str, rendered: str) -> None:
    assert template.render(text, VARIABLES) == template.Rendered(rendered)


def test_an_unknown_variable_is_empty_and_reported_once() -> None:
    assert template.render("a{b}c{b}{header.X-No}", {}) == template.Rendered("ac", ("b", "header.X-No"))


def test_names_are_listed_once_in_order() -> None:
    assert template.names("{b} {a} {b} {{c}} {header.X-A} {header.x-a}") == ("b", "a", "header.x-a")


@pytest.mark.parametrize(
    "text", ["{name", "name}", "{}", "{name.upper}", "{name!r}", "{ name }", "{header.}", '{"a": 1}']
)
def test_other_braces_are_refused_at_load(text: str) -> None:
    with pytest.raises(ValueError, match="is not a variable"):
        template.check(text)


@given(st.text())
def test_rendering_never_fails(text: str) -> None:
    template.render(text, {})


@given(st.text())
def test_what_is_doubled_comes_back_as_it_was(text: str) -> None:
    doubled = text.replace("{", "{{").replace("}", "}}")
    template.check(doubled)
    assert template.render(doubled, {"a": "b"}) == template.Rendered(text)
