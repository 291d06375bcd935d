"""Card numbers and digits in texts: found, and replaced. Pure; knows no events.

A card number is 13 to 19 digits whose last one fits the others (ISO/IEC 7812, Luhn), with blanks, dashes or the like
between them, in figures or said digit by digit in English or German. Refuses to know what was said before and after a
text: `rows` does.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import NamedTuple

CARD = "[card number]"
FEWEST, MOST = 13, 19
HIDDEN = "*"
SPOKEN_AT_LEAST = 3
"""So many digits in words in a row are a number; fewer are talk ("one moment")."""

ENGLISH = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
GERMAN = ("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun")
_WORDS = {
    **{word: digit for words in (ENGLISH, GERMAN) for digit, word in enumerate(words)},
    **{"oh": 0, "o": 0, "nought": 0, "zwo": 2, "fuenf": 5, "ein": 1},
}
_TIMES = {"double": 2, "triple": 3, "doppel": 2, "dreifach": 3}
TIMES = re.compile(rf"\b(?:{'|'.join(_TIMES)})\b", re.IGNORECASE)
_TOKEN = re.compile(rf"\d|\b(?:{'|'.join([*_WORDS, *_TIMES])})\b", re.IGNORECASE)
_BETWEEN = re.compile(r"[\s\u00ad\u200b-\u200d\u2010-\u2015\u2060\-.,;:/_]{0,4}")
"""What may stand between two digits of one number."""


class Digit(NamedTuple):
    """One digit and where it stands in the text. An empty one: the second of a `double five`."""

    value: int
    start: int
    end: int
    spoken: bool


class Span(NamedTuple):
    """A part of a text, and what is told instead."""

    start: int
    end: int
    instead: str


def cards(text: str) -> str:
    """The text with `[card number]` in place of each card number."""
    return replaced(text, card_spans(text)) if _may_hold(text) else text


def digits(text: str) -> str:
    """The text with an asterisk for each figure, and for each digit of a number that is said in words."""
    return replaced(text, digit_spans(text))


def card_spans(text: str) -> list[Span]:
    return [Span(start, end, CARD) for run in runs(text) for start, end in _cards_in(run)]


def digit_spans(text: str) -> list[Span]:
    return [
        Span(digit.start, digit.end, HIDDEN)
        for run in runs(text)
        for digit in run
        if not digit.spoken or sum(each.spoken for each in run) >= SPOKEN_AT_LEAST
    ]


def replaced(text: str, spans: Iterable[Span]) -> str:
    """Each span, and those that overlap as one, replaced. They may be those of a longer text that begins with this one:
    of a span that is cut, what stands for all of it is told.
    """
    parts: list[str] = []
    done = 0
    for start, end, instead in sorted(set(spans)):
        if start >= len(text):
            break
        if start >= done:
            parts += [text[done:start], instead]
        done = max(done, end)
    return "".join([*parts, text[done:]])


def runs(text: str) -> Iterator[list[Digit]]:
    """Digits that follow one another with nothing but separators between them."""
    run: list[Digit] = []
    times, opened, end = 1, 0, -1
    for token in _TOKEN.finditer(text):
        if end < 0 or not _BETWEEN.fullmatch(text, end, token.start()):
            if run:
                yield run
            run, times = [], 1
        word, start, end = token[0].lower(), token.start(), token.end()
        if word in _TIMES:
            times, opened = _TIMES[word], start
            continue
        value = _WORDS[word] if word in _WORDS else unicodedata.decimal(word)
        run += [Digit(value, opened if times > 1 else start, end, word in _WORDS)] * times
        times = 1
    if run:
        yield run


def is_luhn(number: list[int]) -> bool:
    """Whether the last digit fits the others."""
    total = 0
    for place, digit in enumerate(reversed(number)):
        doubled = digit * 2 if place % 2 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0


def _may_hold(text: str) -> bool:
    """Quick, and right where it says no: thirteen digits take thirteen characters at least, or words with three."""
    return len(text) >= FEWEST and _TOKEN.search(text) is not None


def _cards_in(run: list[Digit]) -> Iterator[tuple[int, int]]:
    """Every stretch that is a card number, the longest at each place; they may overlap. Where no more digits are there
    than a card number may have, all of them go with it.
    """
    values = [digit.value for digit in run]
    for first in range(len(run) - FEWEST + 1):
        for length in range(min(MOST, len(run) - first), FEWEST - 1, -1):
            if is_luhn(values[first : first + length]):
                whole = len(run) <= MOST
                yield run[0 if whole else first].start, run[-1 if whole else first + length - 1].end
                break
