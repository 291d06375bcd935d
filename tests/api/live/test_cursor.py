"""Cursors: what is written is read again; what is none, too old or of the future is refused with words that help."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.api.live.cursor import AHEAD_US, LIVES_US, Cursor, named
from sipserver.errors import CallerError, Gone

NOW_US = 1_795_867_200_000_000
RUNS = st.text("0123456789abcdef", min_size=32, max_size=32).map(named)


@given(
    st.integers(NOW_US - LIVES_US, NOW_US),
    st.dictionaries(RUNS, st.integers(NOW_US - LIVES_US, NOW_US), max_size=20),
)
def test_what_is_written_is_read_again(base_us: int, marks: dict[str, int]) -> None:
    cursor = Cursor(base_us, marks)
    read = Cursor.parse(cursor.text(), NOW_US)
    for run in [*marks, "another"]:
        assert read.of(run) == cursor.of(run)


@given(st.text(max_size=60))
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(CallerError):
        Cursor.parse(f"{text}!", NOW_US)


@pytest.mark.parametrize(
    "text", ["", "e1", "e1.", "e1.-5", "e2.ff", "e1.ff.abc", "e1.ff.abc_", "e1.ff..", "e1." + "f" * 9000]
)
def test_what_looks_a_little_like_one_is_refused(text: str) -> None:
    with pytest.raises(CallerError):
        Cursor.parse(text, NOW_US)


def test_one_that_is_too_old_says_what_to_do() -> None:
    with pytest.raises(Gone, match="without `after`"):
        Cursor.parse(Cursor(NOW_US - LIVES_US - 1).text(), NOW_US)
    Cursor.parse(Cursor(NOW_US - LIVES_US - 1, {"ab": NOW_US}).text(), NOW_US)


def test_one_of_the_future_is_refused() -> None:
    with pytest.raises(CallerError, match="future"):
        Cursor.parse(Cursor(NOW_US + AHEAD_US + 1).text(), NOW_US)


def test_a_run_is_named_so_that_a_url_can_have_it() -> None:
    assert named("cell 7/of:one and so on") == "cell-7-of-on"
