"""Scalars as written, lines of keys, and nothing but ConfigError for whatever the text is."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sipserver import yaml_file
from sipserver.errors import ConfigError, SettingsError

FILE = Path("some.yaml")


def parsed(text: str) -> yaml_file.Document:
    return yaml_file.parse_text(text, FILE)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("yes", "yes"),
        ("true", True),
        ("010", 10),
        ("0x1f", 31),
        ("0o17", 15),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("2026-01-02", "2026-01-02"),
        ("1e3", 1000.0),
        ("1.5", 1.5),
        ("-.inf", float("-inf")),
        ("~", None),
        ("", None),
        ("'1'", "1"),
    ],
)
def test_scalars_follow_the_core_schema(text: str, value: Any) -> None:
    found = parsed(f"key: {text}").value["key"]
    assert found == value
    assert isinstance(found, type(value))


@pytest.mark.parametrize("text", ["+4930123", "007", "1.50", "1e3", "true", "-5", "0x1F", "plain"])
def test_a_scalar_remembers_how_it_was_written(text: str) -> None:
    assert yaml_file.as_written(parsed(f"key: {text}").value["key"]) == text


def test_every_key_and_item_has_its_line() -> None:
    document = parsed("a: 1\nb:\n  - x\n  - c: 2\n    d: 3\n")
    assert document.line(("b",)) == 2
    assert document.line(("b", 0)) == 3
    assert document.line(("b", 1, "d")) == 5
    assert document.line(("b", 1, "missing", "deep")) == 4
    assert document.at(("b", 1, "c")) == 2
    assert document.at(("b", 9)) is None
    assert document.nearest(("b", 1, "z", "y")) == ("b", 1)


def test_numbers_as_keys_are_text() -> None:
    assert parsed("on: {1: a, 02: b}").value == {"on": {"1": "a", "02": "b"}}


def test_merge_keys_give_defaults_that_own_keys_override() -> None:
    document = parsed("base: &b {x: 1, y: 2}\nmore: &m {y: 3, z: 4}\nall:\n  <<: [*b, *m]\n  x: 9\n")
    assert document.value["all"] == {"x": 9, "y": 2, "z": 4}
    assert document.line(("all", "x")) == 5


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("a: 1\na: 2", 2, "twice"),
        ("a: 1\nb: [1, 2", 2, "expected"),
        ("a: {? [x] : 1}", 1, "a key must be"),
        ("a: 1\nb: !!python/object:os.system x", 2, "could not determine a constructor"),
        ("a: !!set {x}", 1, "not supported"),
        ("a: &x [*x]", 1, "alias inside its own anchor"),
        ("a: 1\nb: *nothing", 2, "undefined alias"),
        ("a:\n\t- b", 2, "cannot start any token"),
        ("a: 1\n---\nb: 2", 2, "another document"),
        ("a: 1\nb: \x07", 2, "character"),
        ("<<: 5", 1, "takes a mapping"),
        ("a: " + "9" * 5000, 1, "not a whole number"),
        ("a: !!int x", 1, "not a whole number"),
        ("a: !!float x", 1, "not a number"),
        ("a: " + "[" * 5000, 1, "nested too deeply"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(text: str, line: int, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        parsed(text)
    assert caught.value.line == line
    assert str(caught.value).startswith(f"some.yaml:{line}: ")


@pytest.mark.parametrize("form", ["[{}]", "{{{}}}"])
def test_a_small_file_cannot_grow_into_a_huge_one(form: str) -> None:
    levels = ["l0: &l0 [x, x, x, x, x, x, x, x]"]
    for level in range(1, 12):
        items = ", ".join([f"*l{level - 1}"] * 8 if form == "[{}]" else [f"k{n}: *l{level - 1}" for n in range(8)])
        levels.append(f"l{level}: &l{level} {form.format(items)}")
    with pytest.raises(ConfigError, match="too many values"):
        parsed("\n".join(levels))


def test_merges_of_merges_do_not_explode() -> None:
    levels = ["l0: &l0 {x: 1}"] + [f"l{n}: &l{n} {{<<: [*l{n - 1}, *l{n - 1}, *l{n - 1}]}}" for n in range(1, 40)]
    with pytest.raises(ConfigError, match="too many values"):
        parsed("\n".join(levels))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        yaml_file.parse(tmp_path / "none.yaml", SettingsError)
    with pytest.raises(ConfigError, match="directory"):
        yaml_file.parse(tmp_path)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"a: 1\nb: \xfc\n")
    with pytest.raises(ConfigError, match="not UTF-8") as caught:
        yaml_file.parse(latin)
    assert caught.value.line == 2
    long = tmp_path / "long.yaml"
    long.write_bytes(b"#" * (yaml_file.MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="longer than"):
        yaml_file.parse(long)


def test_a_byte_order_mark_is_no_key(tmp_path: Path) -> None:
    file = tmp_path / "bom.yaml"
    file.write_bytes("﻿a: 1".encode())
    assert yaml_file.parse(file).value == {"a": 1}


_YAML_LIKE = st.text(
    alphabet=string.ascii_letters[:6] + "0123456789 \n\t:-[]{}&*!|>'\"#%@`,?<.+~\\/=_\x00é", max_size=120
)
_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=12,
)


@given(_YAML_LIKE | st.text(max_size=60))
def test_no_text_raises_anything_else(text: str) -> None:
    try:
        parsed(text)
    except ConfigError as problem:
        assert "some.yaml" in str(problem)  # noqa: PT017  (most texts are refused, some are not)


@given(_PLAIN)
def test_no_document_raises_anything_else(value: Any) -> None:
    try:
        parsed(yaml.safe_dump(value, allow_unicode=True))
    except ConfigError as problem:
        assert "some.yaml" in str(problem)  # noqa: PT017
