"""Splits a stream of tokens into clauses to synthesise. Pure.

The first clause is short, because the caller waits for it; the others end with a sentence. A split is made only where
the following character is known, so that `3.5`, `1,000`, `e.g. this` and `Dr. Miller` stay whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

FIRST_WORDS = 6
"""A first clause without punctuation is cut after this many words ..."""
LONG_CHARACTERS = 240
"""... and any other after this many characters."""
_MIN_FIRST = 2
"""A first clause has at least this many characters before its comma (`A, b` is no clause, `Yes,` is)."""

_SENTENCE_END = ".!?…。！？"
_PAUSE = ",;:–—"
_CLOSING = "\"')]}»”’"
_WITH_FULL_STOP = """
    mr mrs ms dr prof st vs etc e.g i.e approx dept inc ltd co jan feb apr aug sept oct nov dec
    z.b d.h u.a o.ä bzw ca usw evtl ggf inkl zzgl str hr fr mio mrd a.m p.m u.s
"""
_BEFORE_NUMBERS = frozenset({"no", "nr", "tel", "abs", "art", "max", "min", "mar", "jun", "jul", "sep"})
"""Abbreviations only if a number follows: each of them also ends sentences."""
_ABBREVIATIONS = frozenset(_WITH_FULL_STOP.split())
_UNSPOKEN = re.compile(r"[*_`#]+|^\s*[-•]\s+", re.MULTILINE)


def speakable(text: str) -> str:
    """The text without Markdown marks and with single spaces; empty when nothing in it can be spoken."""
    plain = " ".join(_UNSPOKEN.sub("", text).split())
    return plain if any(character.isalnum() for character in plain) else ""


class ClauseSplitter:
    """Feed tokens with `push`, end with `finish`; both return the clauses that became complete.

    short_first: cut the first clause as early as it can be spoken.
    """

    def __init__(self, *, short_first: bool = True) -> None:
        self._text = ""
        self._first = short_first

    def push(self, token: str) -> list[str]:
        self._text += token
        clauses: list[str] = []
        while (cut := self._cut()) is not None:
            clause = speakable(self._text[:cut])
            self._text = self._text[cut:].lstrip()
            if clause:
                clauses.append(clause)
                self._first = False
        return clauses

    def finish(self) -> list[str]:
        clause = speakable(self._text)
        self._text = ""
        return [clause] if clause else []

    def _cut(self) -> int | None:
        """Position behind the next clause, or None when it is not complete yet."""
        text = self._text
        for index in range(len(text) - 1):
            if text[index] == "\n":
                return index + 1
            if text[index] in _SENTENCE_END and self._ends_sentence(index):
                return self._behind(index)
            if self._first and text[index] in _PAUSE and index >= _MIN_FIRST and text[index + 1].isspace():
                return index + 1
        return self._too_long()

    def _behind(self, index: int) -> int:
        while index + 1 < len(self._text) and self._text[index + 1] in _CLOSING + _SENTENCE_END:
            index += 1
        return index + 1

    def _ends_sentence(self, index: int) -> bool:
        text = self._text
        behind = self._behind(index)
        if behind >= len(text):
            return False
        if text[index] in "。！？":
            return True
        if not text[behind].isspace():
            return False
        return text[index] != "." or self._is_full_stop(text[:index], text[behind:].lstrip())

    @staticmethod
    def _is_full_stop(before: str, following: str) -> bool:
        word = before.rsplit(maxsplit=1)[-1].lstrip("(\"'").lower() if before.strip() else ""
        if word in _BEFORE_NUMBERS:
            return bool(following) and not following[0].isdigit()
        if word in _ABBREVIATIONS or (len(word) == 1 and word.isalpha()):
            return False
        # "am 3. Mai", "the 2. of": an ordinal; a sentence that ends with a small number is joined with the next one.
        return not (word.isdigit() and len(word) <= 2)

    def _too_long(self) -> int | None:
        text = self._text
        if self._first:
            words = list(re.finditer(r"\S+\s", text))
            return words[FIRST_WORDS - 1].end() if len(words) >= FIRST_WORDS else None
        if len(text) <= LONG_CHARACTERS:
            return None
        pause = max((text.rfind(mark + " ", 40, LONG_CHARACTERS) for mark in _PAUSE), default=-1)
        space = pause + 1 if pause > 0 else text.rfind(" ", 0, LONG_CHARACTERS)
        return space + 1 if space > 0 else LONG_CHARACTERS


def split(tokens: Iterable[str]) -> list[str]:
    """All clauses of a stream that is known already."""
    splitter = ClauseSplitter()
    clauses = [clause for token in tokens for clause in splitter.push(token)]
    return clauses + splitter.finish()


def sentences(text: str) -> list[str]:
    """A known text in sentences, without a short first clause: for texts whose sound is cached."""
    splitter = ClauseSplitter(short_first=False)
    return splitter.push(text) + splitter.finish()
