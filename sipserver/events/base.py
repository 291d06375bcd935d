"""What every event is, and who stamps it. The package says the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar


def private(default: str = "") -> Any:
    """A field that holds speech, digits or a phone number."""
    return field(default=default, metadata={"private": True})


_NAMES: dict[type, tuple[str, ...]] = {}
"""The fields of each class, found with its first event: an event is told every few milliseconds."""


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events. `kind` is the name in records, logs and webhooks; it never changes once published. `version`
    grows when a field goes or changes its meaning; further fields may come without that.
    """

    kind: ClassVar[str] = "event"
    version: ClassVar[int] = 1

    def fields(self) -> dict[str, Any]:
        """Plain JSON-able fields, in order of declaration. Shallow: an event holds nothing that could change."""
        names = _NAMES.get(type(self))
        if names is None:
            names = _NAMES[type(self)] = tuple(each.name for each in dataclasses.fields(self))
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Stamped:
    """An event of one call. at_ms: since the call began (its first INVITE), on the monotonic clock."""

    call_id: str
    tenant: str
    at_ms: int
    event: Event


Emit = Callable[[Event], None]
"""How a producer hands over an event. Loop thread; never blocks, never raises."""


@dataclass(frozen=True, slots=True)
class LegEvent(Event):
    """Something that a leg tells. leg: empty for the call's own; the name of another party, e.g. `party-1`, which the
    call adds.
    """

    leg: str = field(default="", kw_only=True)

    def fields(self) -> dict[str, Any]:
        """Those of every event; `leg` only where it says something."""
        told = Event.fields(self)
        if not self.leg:
            del told["leg"]
        return told
