"""Entries survive the way over the bus and through the spool."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from sipserver.journal import Entry, Kind

PLAIN = some.recursive(
    some.none() | some.booleans() | some.integers(-(2**53), 2**53) | some.floats(allow_nan=False) | some.text(),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    some.builds(
        Entry,
        kind=some.sampled_from(Kind),
        node=some.text(),
        run=some.text(),
        call_id=some.text(),
        at=some.floats(allow_nan=False, allow_infinity=False),
        fields=some.dictionaries(some.text(), PLAIN, max_size=4),
    )
)
def test_an_entry_is_one_line_of_ascii_and_comes_back_as_it_was(entry: Entry) -> None:
    line = entry.encode()
    assert line.isascii()
    assert line.splitlines() == [line]
    assert Entry.decode(line) == entry


@pytest.mark.parametrize(
    "line", [b"", b"{}", b"[]", b'["opened"', b'["unknown","n","r","c",0,{}]', b'["event","n","r","c",0,7]', b"\xff"]
)
def test_what_is_no_entry_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match="not an entry"):
        Entry.decode(line)
