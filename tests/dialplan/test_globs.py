"""Lists of globs, with `!` for what is left out."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from sipserver.dialplan.globs import Globs, bare, takes


@pytest.mark.parametrize(
    ("globs", "value", "taken"),
    [
        (("1*",), "100", True),
        (("1*", "2*"), "200", True),
        (("1*", "2*"), "300", False),
        (("!1*",), "200", True),
        (("!1*",), "100", False),
        (("!1*", "!2*"), "200", False),
        (("1*", "!112"), "113", True),
        (("1*", "!112"), "112", False),
        (("!112", "1*"), "112", False),
        (("! 112",), "112", False),
        (("!*",), "", False),
    ],
)
def test_one_must_hit_and_none_with_an_exclamation_mark(globs: tuple[str, ...], value: str, taken: bool) -> None:
    assert takes(globs, value) is taken


def test_case_counts_unless_folded() -> None:
    assert not takes(("GOLD*",), "gold-1")
    assert takes(("GOLD*",), "gold-1", fold=True)
    assert not takes(("!GOLD*",), "gold-1", fold=True)


def test_a_single_glob_is_a_list_of_one() -> None:
    globs: TypeAdapter[Any] = TypeAdapter(Globs)
    assert globs.validate_python("1*") == ("1*",)
    assert globs.validate_python(["!1*", 2]) == ("!1*", "2")
    for nothing in ("", "!", "! ", [], ["a", ""]):
        with pytest.raises(ValidationError):
            globs.validate_python(nothing)


def test_the_pattern_behind_the_exclamation_mark() -> None:
    assert [bare(text) for text in ("a", "!a", "! a", "a!")] == ["a", "a", "a", "a!"]
