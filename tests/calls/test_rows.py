"""A card number that is said in parts, or cut off, is told nowhere further than its sixth digit; other numbers are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.calls.redaction import ENGLISH, GERMAN, replaced
from sipserver.calls.rows import ROW_MS, SHOWN_DIGITS, Row
from sipserver.calls.settings import Redact
from tests.calls.test_redaction import card_numbers

MARKS = st.sampled_from(["", ".", ",", " ", " - ", "...", "? ", "\n"])


def told(*texts: str, redact: Redact = Redact.CARDS, gap_ms: int = 1000) -> list[str]:
    row = Row(redact)
    return [replaced(text, row.spans(text, number * gap_ms)) for number, text in enumerate(texts)]


@st.composite
def parts(draw: st.DrawFn, written: tuple[str, ...]) -> list[str]:
    """A card number in one to nineteen texts, with words before and after it, and marks and pauses anywhere."""
    number = draw(card_numbers().filter(lambda number: not number.startswith("0")))
    texts, text = [], draw(st.sampled_from(["", "My card is "]))
    for digit in number:
        text += written[int(digit)] + (" " if len(written[0]) > 1 else "") + draw(MARKS)
        if draw(st.booleans()):
            texts += [text, *draw(st.sampled_from([[], ["One moment, please."], [""]]))]
            text = ""
    return [*texts, text + draw(st.sampled_from(["", " Thanks."]))]


@given(parts(tuple("0123456789")))
def test_of_a_card_number_in_parts_six_digits_are_told(texts: list[str]) -> None:
    figures = [character for character in "".join(told(*texts)) if character.isdecimal()]
    assert len(figures) <= SHOWN_DIGITS


@given(st.sampled_from([ENGLISH, GERMAN]).flatmap(parts))
def test_in_words_too(texts: list[str]) -> None:
    said = " ".join(told(*texts)).replace("One moment", "").replace(",", " ").replace(".", " ").replace("-", " ")
    words = [word for word in said.replace("?", " ").split() if word in (*ENGLISH, *GERMAN)]
    assert len(words) <= SHOWN_DIGITS


@given(parts(tuple("0123456789")))
def test_no_digit_is_told_where_that_is_set(texts: list[str]) -> None:
    assert not any(character.isdecimal() for character in "".join(told(*texts, redact=Redact.DIGITS)))


def test_a_sentence_that_became_two_clauses() -> None:
    assert told("Your card number is 4012 8888", "8888 1881, isn't it?") == [
        "Your card number is 4012 88**",
        "**** ****, isn't it?",
    ]


def test_marks_that_are_in_no_number_part_none() -> None:
    assert told("4012 8888 (8888 1881)") == ["4012 88** (**** ****)"]
    assert told("four zero one two eight double", "eight nine") == ["four zero one two eight double", "eight *"]


def test_a_guess_does_not_count() -> None:
    row = Row(Redact.CARDS)
    for _ in range(3):
        assert not row.spans("4711", 0, guess=True)
    assert replaced("8888", row.spans("8888", 0)) == "8888"
    assert replaced("1881", row.spans("1881", 0)) == "18**"


def test_a_row_is_over_after_a_while() -> None:
    assert told("1234", "5678") == ["1234", "56**"]
    assert told("1234", "5678", gap_ms=ROW_MS + 1) == ["1234", "5678"]


@pytest.mark.parametrize(
    "texts",
    [
        ["Call us at 0171 2345678.", "We are open."],
        ["It is +49 30 1234567."],
        ["My number is 415 555 2671, please call."],
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


def test_a_number_that_may_go_on_and_does_not_look_like_another_is_told_to_its_sixth_digit() -> None:
    assert told("My number is 415 555 2671.") == ["My number is 415 555 ****."]
    assert told("40.12.8888.", "8888 1881") == ["40.12.88**.", "**** ****"]


def test_digits_in_words_are_hidden_across_texts_where_that_is_set() -> None:
    assert told("four seven", "one one", redact=Redact.DIGITS) == ["four seven", "* *"]
    assert told("Which one?", "The other one.", redact=Redact.DIGITS) == ["Which one?", "The other one."]
