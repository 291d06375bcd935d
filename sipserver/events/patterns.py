"""Patterns of kinds, such as `call.*`, by which somebody says which events they want.

Owns that each of them means something: a slip of the pen would be silence for ever. Refuses to know who listens.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from sipserver.errors import CallerError
from sipserver.events import KINDS

_SHOWN = 64


def check(patterns: Sequence[str], besides: Collection[str] = ()) -> None:
    """Raises CallerError for a pattern that matches no kind. besides: kinds that are told and are no events."""
    for pattern in patterns:
        if not any(fnmatchcase(kind, pattern) for kind in (*KINDS, *besides)):
            raise CallerError(f"no kind of event matches `{pattern[:_SHOWN]}`: docs/events.md lists all kinds")
