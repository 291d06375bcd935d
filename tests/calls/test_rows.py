"""Of a card number that is said in parts, or cut off, ten digits are told at most; other numbers are told whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.calls.redaction import ENGLISH, GERMAN, replaced
from sipserver.calls.rows import ROW_MS, SHOWN_OPEN, Row
from sipserver.calls.settings import Redact
from tests.calls.test_redaction import card_numbers

MARKS = st.sampled_from(["", ".", ",", " ", " - ", "...", "? ", "\n"])


def told(*texts: str, redact: Redact = Redact.CARDS, gap_ms: int = 1000) -> list[str]:
    row = Row(redact)
    return [replaced(text, row.spans(text, number * gap_ms)) for number, text in enumerate(texts)]


def figures(*texts: str) -> str:
    return "".join(character for character in "".join(texts) if character.isdecimal())


@st.composite
def parts(draw: st.DrawFn, written: tuple[str, ...]) -> list[str]:
    """A card number in one to nineteen texts, with words before and after it, and marks and pauses anywhere."""
    number = draw(card_numbers().filter(lambda number: number[0] not in "01"))
    texts, text = [], draw(st.sampled_from(["", "My card is "]))
    for digit in number:
        text += written[int(digit)] + (" " if len(written[0]) > 1 else "") + draw(MARKS)
        if draw(st.booleans()):
            texts += [text, *draw(st.sampled_from([[], ["One moment, please."], [""]]))]
            text = ""
    return [*texts, text + draw(st.sampled_from(["", " Thanks."]))]


@given(parts(tuple("0123456789")))
def test_of_a_card_number_in_parts_ten_digits_are_told_at_most(texts: list[str]) -> None:
    read = figures(*told(*texts))
    assert len(read) <= SHOWN_OPEN
    assert figures(*texts).startswith(read)


@given(parts(tuple("0123456789")))
def test_guesses_on_the_way_tell_no_more(texts: list[str]) -> None:
    row, before = Row(Redact.CARDS), 0
    for text in texts:
        for length in range(len(text) + 1):
            read = figures(replaced(text[:length], row.spans(text[:length], 0, guess=True)))
            assert not read or before + len(read) <= SHOWN_OPEN
        row.spans(text, 0)
        before += len(figures(text))


@given(st.sampled_from([ENGLISH, GERMAN]).flatmap(parts))
def test_in_words_too(texts: list[str]) -> None:
    said = " ".join(told(*texts)).replace("One moment", "").replace(",", " ").replace(".", " ").replace("-", " ")
    words = [word for word in said.replace("?", " ").split() if word in (*ENGLISH, *GERMAN)]
    assert len(words) <= SHOWN_OPEN


@given(parts(tuple("0123456789")))
def test_no_digit_is_told_where_that_is_set(texts: list[str]) -> None:
    assert not figures(*told(*texts, redact=Redact.DIGITS))


def test_a_sentence_that_became_two_clauses() -> None:
    assert told("Your card number is 4012 8888", "8888 1881, isn't it?") == [
        "Your card number is 4012 8888",
        "**** ****, isn't it?",
    ]


def test_ten_digits_are_told_and_none_that_follow() -> None:
    assert told("4012 8888 88", "88 1881") == ["4012 8888 88", "** ****"]
    assert told("4012", "8888", "8888", "1881") == ["4012", "8888", "****", "****"]
    assert told("4012 8", "888 88", "8", "8 1881, thanks") == ["4012 8", "888 88", "*", "* ****, thanks"]
    assert told("4012 8", "888 888") == ["4012 8", "8** ***"]
    assert told("4012 8888 888", "8 1881") == ["4012 88** ***", "* ****"]


def test_marks_that_are_in_no_number_part_none() -> None:
    assert told("4012 8888 (8888 1881)") == ["4012 8888 (**** ****)"]
    text = "four zero one two eight eight eight double"
    assert told(text, "eight nine eight one") == [text, "* * * *"]


def test_a_guess_does_not_count() -> None:
    row = Row(Redact.CARDS)
    for _ in range(3):
        assert not row.spans("4711", 0, guess=True)
    for text, shown in (("8888", "8888"), ("1881", "1881"), ("4711", "****")):
        assert replaced(text, row.spans(text, 0)) == shown


def test_a_row_is_over_after_a_while() -> None:
    assert told("12345678", "1234") == ["12345678", "****"]
    assert told("12345678", "1234", gap_ms=ROW_MS + 1) == ["12345678", "1234"]


@pytest.mark.parametrize(
    "texts",
    [
        ["Call us at 0171 2345678.", "We are open."],
        ["It is +49 30 1234567.", "94107."],
        ["My number is 415 555 2671."],
        ["My number is 415 555 2671.", "My zip code is 94107.", "Yes.", "And my order is 1234567890."],
        ["My number is four one five five five five two six seven one.", "The code is nine four one zero seven."],
        ["My number is 1 415 555 2671, please call.", "94107."],
        ["My number is 1 415 555 2671.", "94107."],
        ["On 12.05.2025.", "At 14:30."],
        ["On 2025-05-12"],
        ["Room 12.", "345 beds."],
        ["Which one?", "The first one.", "No one."],
        ["Your code is 471100."],
    ],
)
@pytest.mark.parametrize("number", [1, 2])
def test_other_numbers_are_told(texts: list[str], number: int) -> None:
    assert told(*texts * number) == texts * number


def test_a_longer_number_that_may_go_on_and_does_not_look_like_another_is_told_to_its_sixth_digit() -> None:
    assert told("My number is 2 415 555 2671.") == ["My number is 2 415 55* ****."]
    assert told("It is 1354 1234 567", "8 911") == ["It is 1354 12** ***", "* ***"]
    assert told("It is 1415 5526 7100") == ["It is 1415 55** ****"]
    assert told("40.12.8888.", "8888 1881") == ["40.12.8888.", "**** ****"]


def test_a_number_alone_that_follows_another_counts_on() -> None:
    assert told("It is 415 555 2671.", "94107.") == ["It is 415 555 2671.", "*****."]


def test_digits_in_words_are_hidden_across_texts_where_that_is_set() -> None:
    assert told("four seven", "one one", redact=Redact.DIGITS) == ["four seven", "* *"]
    assert told("Which one?", "The other one.", redact=Redact.DIGITS) == ["Which one?", "The other one."]
