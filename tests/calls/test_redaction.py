"""Card numbers and digits are found however they are written or said, and nothing else is touched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.calls import redaction
from sipserver.calls.redaction import ENGLISH, GERMAN


@st.composite
def card_numbers(draw: st.DrawFn) -> str:
    """13 to 19 digits, the last of which fits."""
    head = draw(st.text("0123456789", min_size=12, max_size=18))
    return next(head + last for last in "0123456789" if redaction.is_luhn([int(each) for each in head + last]))


@given(card_numbers(), st.sampled_from(["", " ", "-", " - ", ", ", ".", "\u00a0", "\u2013"]))
def test_card_numbers_in_figures(number: str, between: str) -> None:
    told = redaction.cards(f"It is {between.join(number)} thanks")
    assert told == "It is [card number] thanks"


@given(card_numbers(), st.sampled_from([ENGLISH, GERMAN]), st.sampled_from([" ", ", ", " - "]))
def test_card_numbers_in_words(number: str, words: tuple[str, ...], between: str) -> None:
    said = between.join(words[int(digit)] for digit in number)
    assert redaction.cards(f"It is {said.capitalize()}. Thanks") == "It is [card number]. Thanks"


@given(card_numbers())
def test_a_card_number_with_more_digits_around_it(number: str) -> None:
    assert number not in redaction.cards(f"12 27 {number} 123")


@given(st.text("0123456789 -,x.\n", max_size=80))
def test_nothing_that_is_a_card_number_stays(text: str) -> None:
    told = redaction.cards(text)
    assert redaction.cards(told) == told


@given(st.text(max_size=200))
def test_any_text_is_taken_and_talk_stays(text: str) -> None:
    assert not any(character.isdecimal() for character in redaction.digits(text))
    if not any(character.isdecimal() for character in text) and not any(
        word in text.lower() for word in (*ENGLISH, *GERMAN, "o")
    ):
        assert redaction.digits(text) == redaction.cards(text) == text


@given(st.text("0123456789", max_size=12), st.text("abc", max_size=5))
def test_shorter_numbers_stay(number: str, word: str) -> None:
    assert redaction.cards(f"{word}{number}{word}") == f"{word}{number}{word}"


@pytest.mark.parametrize(
    "text",
    ["one moment please", "4111 1111 111", "call me at +49 30 1234567", "no one, two or three people", ""],
)
def test_what_is_no_card_number_stays(text: str) -> None:
    assert redaction.cards(text) == text


def test_double_and_triple() -> None:
    assert redaction.cards("four triple one double one double one double one double one double one double one") == (
        "[card number]"
    )


def test_digits_said_in_a_row_are_hidden_and_talk_is_not() -> None:
    assert redaction.digits("one moment, my pin is four seven one one, ok?") == "one moment, my pin is * * * *, ok?"
    assert redaction.digits("room 12 at 3:45") == "room ** at *:**"
