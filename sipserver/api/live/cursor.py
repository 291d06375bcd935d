"""How far somebody has got in a tenant's events, as a text that any process can go on from. Pure.

Events have a total order within a run (a life of a process that has calls), not between runs: so a cursor has a mark
for each run that told something lately, and a base, up to which all others are known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from sipserver.errors import CallerError, Gone

LIVES_US = 24 * 3600 * 1_000_000
AHEAD_US = 3600 * 1_000_000
"""Clocks of machines may differ, but not by so much."""
MOST = 16_384
"""Characters."""
_FORM = re.compile(r"^e1\.[0-9a-f]{1,15}(\.[0-9A-Za-z-]{1,12}_[0-9a-f]{1,15})*$")


def named(run: str) -> str:
    """A run as cursors name it."""
    return re.sub(r"[^0-9A-Za-z]", "-", run[:12])


@dataclass(frozen=True, slots=True)
class Cursor:
    """base_us: all events up to this moment are known. marks: by `named` run, how far beyond that."""

    base_us: int
    marks: Mapping[str, int] = field(default_factory=dict)

    def of(self, run: str) -> int:
        """The mark of a run, as `named`."""
        return max(self.marks.get(run, 0), self.base_us)

    def text(self) -> str:
        """Letters, digits and `._-`: fit for a URL."""
        beyond = (f"{run}_{mark - self.base_us:x}" for run, mark in self.marks.items() if mark > self.base_us)
        return ".".join((f"e1.{self.base_us:x}", *beyond))

    @classmethod
    def parse(cls, text: str, now_us: int) -> Cursor:
        """Raises CallerError for what is no cursor of ours, Gone for one that is too old."""
        if len(text) > MOST or not _FORM.match(text):
            raise CallerError("`after` is no cursor: give the `cursor` of the last message that you have, as it came")
        _, base, *pairs = text.split(".")
        base_us = int(base, 16)
        marks = {run: base_us + int(delta, 16) for run, _, delta in (pair.partition("_") for pair in pairs)}
        newest_us = max([base_us, *marks.values()])
        if newest_us > now_us + AHEAD_US:
            raise CallerError("`after` is a cursor of the future: give one that came with a message")
        if newest_us < now_us - LIVES_US:
            raise Gone(
                "the cursor in `after` is older than a day: read what happened with GET /api/v1/calls, and connect "
                "without `after`"
            )
        return cls(base_us, marks)
