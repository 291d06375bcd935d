"""Numbers that are said in parts: a row of digits may go on in the next thing that a voice says, or be cut off.

That it is a card number is known too late then. So of a row that ends a text, and is longer than most telephone
numbers are without their country, only the first digits are told, and the next text counts on, as it does for digits
that are typed. Owns the count of one voice; knows no events.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from sipserver.calls import redaction
from sipserver.calls.redaction import Digit, Span
from sipserver.calls.settings import Redact

SHOWN_DIGITS = 6
"""So many digits of a long row may be read: the first of a card number that may be shown (PCI DSS 3.4)."""
SHOWN_OPEN = 10
"""A row that ends a text is told whole up to here: a telephone number of North America. As many digits may be shown of
a card, though not the same ones (the first six and the last four). What would follow is hidden."""
ROW_MS = 60_000
"""A digit that comes later begins a new row."""
_LONGEST_DIALLED = 15
"""Digits of a telephone number, its country with it (E.164)."""
_NORTH_AMERICAN = 11
_DATE = re.compile(
    r"(?:0?[1-9]|[12]\d|3[01])([./-])(?:0?[1-9]|[12]\d|3[01])\1(?:19|20)\d\d|(?:19|20)\d\d-[01]\d-[0-3]\d"
)


class Row:
    """One voice's."""

    def __init__(self, redact: Redact) -> None:
        all_digits = redact is Redact.DIGITS
        self._in_one = redaction.digit_spans if all_digits else redaction.card_spans
        self._fewest = redaction.SPOKEN_AT_LEAST if all_digits else redaction.FEWEST
        self._shown = redaction.SPOKEN_AT_LEAST - 1 if all_digits else SHOWN_DIGITS
        self._shown_open = self._shown if all_digits else SHOWN_OPEN
        self._count, self._last_ms = 0, 0

    def spans(self, text: str, at_ms: int, *, guess: bool = False) -> list[Span]:
        """What is not told of the next text. One without a number ends no row: somebody may say "one moment" between.

        at_ms: by the call's clock. guess: another text for the same words follows.
        """
        whole = self._in_one(text)
        parts = self._in_parts(text, at_ms, guess)
        return [*whole, *_outside(parts, whole)]

    def _in_parts(self, text: str, at_ms: int, guess: bool) -> list[Span]:
        """Digits of rows that have begun before or may go on. A row that has ended and is too short for a card number
        is told.
        """
        spans: list[Span] = []
        count, numbers = self._count if at_ms - self._last_ms <= ROW_MS else 0, False
        for run, goes_on, stays_open in _linked(text):
            before = count if goes_on else 0
            total = before + len(run)
            exempt = stays_open and not before and _is_no_card(text, run)
            may_be_one = total > self._shown_open if stays_open else before > 0 and total >= self._fewest
            if may_be_one and not exempt:
                told = max(0, self._shown - before)
                spans += [Span(digit.start, digit.end, redaction.HIDDEN) for digit in run[told:]]
            if stays_open or not _is_talk(run):
                count, numbers = total if stays_open and not exempt else 0, True
        if numbers and not guess:
            self._count, self._last_ms = count, at_ms
        return spans


def _outside(parts: Sequence[Span], whole: Sequence[Span]) -> Iterator[Span]:
    """Those of the parts that begin in none of the whole ones; a long text has thousands of both. parts: in order."""
    waiting = sorted(whole)
    place = covered = 0
    for part in parts:
        while place < len(waiting) and waiting[place].start <= part.start:
            covered, place = max(covered, waiting[place].end), place + 1
        if part.start >= covered:
            yield part


def _linked(text: str) -> Iterator[tuple[list[Digit], bool, bool]]:
    """Each run, with whether no word parts it from what was before, and from what follows."""
    end, runs = 0, list(redaction.runs(text))
    starts = [*(run[0].start for run in runs), len(text)]
    for run, following in zip(runs, starts[1:], strict=True):
        before, end = end, run[-1].end
        yield run, _no_word(text[before : run[0].start]), _no_word(text[end:following])


def _is_talk(run: Sequence[Digit]) -> bool:
    return len(run) < redaction.SPOKEN_AT_LEAST and all(digit.spoken for digit in run)


def _no_word(text: str) -> bool:
    """But for a `double` whose digit comes in the next text."""
    return not any(character.isalnum() for character in redaction.TIMES.sub("", text))


def _is_no_card(text: str, run: Sequence[Digit]) -> bool:
    """A date, or a telephone number as it is dialled from abroad (`+`), within many a country (`0`) or within North
    America (`1`, and ten digits of which neither area nor exchange begins with 0 or 1). But for those of airlines no
    card numbers begin like these.
    """
    start, end = run[0].start, run[-1].end
    if _DATE.fullmatch(text, start, end):
        return True
    if text[start] == "1" and len(run) == _NORTH_AMERICAN and min(run[1].value, run[4].value) > 1:
        return True
    dialled = text[:start].endswith("+") or (text[start] == "0" and text[start + 1 : start + 2].isdecimal())
    return dialled and len(run) <= _LONGEST_DIALLED
