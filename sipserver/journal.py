"""The journal: what a process tells about its calls, in the form in which it travels to where records are written.

Owns the entry and its JSON. Refuses to know buses, files and databases: the bus carries entries, the spool keeps them,
the store folds them into rows.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class Kind(enum.StrEnum):
    """fields of each: OPENED tenant, direction, from_uri, to_uri, source, sip_call_id. ANSWERED none. EVENT tenant,
    seq, at_ms, kind, fields (those of the event's class). RECORDING path, status. CLOSED reason, sip_code.
    RUN_GONE detail: the process is dead, whatever it has not closed has crashed (call_id is empty).
    """

    OPENED = "opened"
    ANSWERED = "answered"
    EVENT = "event"
    RECORDING = "recording"
    CLOSED = "closed"
    RUN_GONE = "run_gone"


def micros(at: float) -> int:
    """A moment as microseconds since the epoch: what tells the events of a run apart, and orders them."""
    return round(at * 1e6)


_json = json.JSONEncoder(separators=(",", ":"), default=str, check_circular=False).encode
"""Made once: `json.dumps` makes an encoder for every call that wants anything unusual."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the journal. Applying it twice does no harm; entries of one run are in order.

    node: the machine (a supervisor's name). run: the life of one process of it; a restarted cell has another.
    at: the time of day when it happened, seconds since the epoch in UTC; of events of a run no two have the same
    microsecond, and each a later one than the event before.
    """

    kind: Kind
    node: str
    run: str
    call_id: str
    at: float
    fields: Mapping[str, Any] = field(default_factory=dict)

    def encode(self) -> bytes:
        """One line of JSON without the line feed; ASCII."""
        return _json([self.kind, self.node, self.run, self.call_id, self.at, dict(self.fields)]).encode()

    @classmethod
    def decode(cls, line: bytes) -> Entry:
        """Raises ValueError for what is no entry."""
        try:
            kind, node, run, call_id, at, fields = json.loads(line)
            return cls(Kind(kind), str(node), str(run), str(call_id), float(at), dict(fields))
        except (TypeError, ValueError) as problem:
            raise ValueError(f"not an entry of the journal: {problem}") from None
