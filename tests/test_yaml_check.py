"""Mistakes name the key as it is written, its line and a reason without jargon."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from sipserver import yaml_check, yaml_file
from sipserver.errors import ConfigError


def parsed(text: str) -> yaml_file.Document:
    return yaml_file.parse_text(text, Path("some.yaml"))


class Cat(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["dog"]
    name: str


class Home(BaseModel):
    model_config = ConfigDict(extra="forbid")
    pets: dict[str, Annotated[Cat | Dog, Field(discriminator="kind")]] = {}
    doors: list[int] = []
    is_: str = Field(default="", alias="is")
    walls: Annotated[list[int], Field(min_length=1)] = [1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("doors: 1", "some.yaml:1: doors: should be a list"),
        ("doors:\n- 1\n- x", "some.yaml:3: doors[1]: should be a whole number"),
        ("\npets:\n  a: {kind: cat, lives: x}", "some.yaml:3: pets.a.lives: should be a whole number"),
        ("pets:\n  cat:\n    kind: cat\n    cat: 1", "some.yaml:4: pets.cat.cat: unknown key"),
        ("pets:\n  a: {kind: dog}", "some.yaml:2: pets.a.name: this key is required"),
        ("pets:\n  a:\n    kind: cow", "some.yaml:3: pets.a.kind: should be one of 'cat', 'dog'"),
        ("pets:\n  a: {}", "some.yaml:2: pets.a.kind: this key is required"),
        ("pets: [1]", "some.yaml:1: pets: should be a mapping (`key: value`)"),
        ("is: [1]", "some.yaml:1: is: should be text"),
        ("- 1", "some.yaml:1: should be a mapping (`key: value`)"),
        ("walls: []", "some.yaml:1: walls: should not be empty"),
        ("walls: [x]", "some.yaml:1: walls[0]: should be a whole number"),
        ("is_: a", "some.yaml:1: is_: unknown key, did you mean `is`?"),
    ],
)
def test_a_mistake_names_the_key_as_it_is_written(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        yaml_check.check(parsed(text), Home)
    assert str(caught.value) == message


def test_all_mistakes_come_in_the_order_of_the_file() -> None:
    document = parsed("walls: 1\nx: 1\ndoors: 2\n")
    model, mistakes = yaml_check.check_all(document, document.value, Home)
    assert model is None
    assert [mistake.line for mistake in mistakes] == [1, 2, 3]


def test_an_empty_file_has_all_defaults() -> None:
    assert yaml_check.check(parsed("# nothing\n"), Home).doors == []


_WORD = st.sampled_from(["pets", "doors", "is", "walls", "kind", "cat", "dog", "name", "lives", "x"])
_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _WORD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORD, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(_WORD, _VALUE, max_size=4) | _VALUE)
def test_every_mistake_has_a_line_and_no_document_raises_anything_else(value: Any) -> None:
    document = parsed(yaml.safe_dump(value))
    model, mistakes = yaml_check.check_all(document, document.value, Home)
    assert (model is None) == bool(mistakes)
    assert all(isinstance(mistake, ConfigError) and mistake.line for mistake in mistakes)
