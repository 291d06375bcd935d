"""What calls tell their record, as entries of the journal. Knows no database, so that a cell can have it.

Owns the numbers of a call's events. Refuses to know where entries go.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from sipserver.events import Stamped
from sipserver.journal import Entry, Kind, micros

REMEMBERED = 256
"""Ended calls that may still get an event: a leg's last statistics can come late."""


class JournalSink:
    """Satisfies `calls.RecordSink`. Loop thread; `tell` must not block. About 4 us an event.

    node, run: what every entry carries. now: the time of day in seconds since the epoch, when a call begins. clock:
    seconds that never jump; the rest of a call's times follow from them, so that none ends before it begins. strays:
    what was told about calls that have not begun or are long over.
    """

    def __init__(
        self,
        node: str,
        run: str,
        tell: Callable[[Entry], None],
        *,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node, self._run, self._tell, self._now, self._clock = node, run, tell, now, clock
        self._next_seq: dict[str, int] = {}
        self._began: dict[str, float] = {}
        """By call: the time of day at which its clock would have been zero."""
        self._ended: deque[str] = deque()
        self._last_us = 0
        self.strays = 0

    def started(
        self,
        *,
        call_id: str,
        tenant: str,
        direction: str,
        from_uri: str,
        to_uri: str,
        source: str,
        sip_call_id: str,
    ) -> None:
        """A call has begun. Telling it twice is a stray."""
        if call_id in self._next_seq:
            self.strays += 1
            return
        self._next_seq[call_id] = 0
        moment = self._now()
        self._began[call_id] = moment - self._clock()
        facts = {
            "tenant": tenant,
            "direction": direction,
            "from_uri": from_uri,
            "to_uri": to_uri,
            "source": source,
            "sip_call_id": sip_call_id,
        }
        self._tell(Entry(Kind.OPENED, self._node, self._run, call_id, moment, facts))

    def answered(self, call_id: str) -> None:
        if self._known(call_id):
            self._write(Kind.ANSWERED, call_id, {})

    def append(self, stamped: Stamped) -> None:
        seq = self._next_seq.get(stamped.call_id)
        if seq is None:
            self.strays += 1
            return
        self._next_seq[stamped.call_id] = seq + 1
        event = stamped.event
        fields = {
            "tenant": stamped.tenant,
            "seq": seq,
            "at_ms": stamped.at_ms,
            "kind": event.kind,
            "fields": event.fields(),
        }
        self._last_us = max(micros(self._moment(stamped.call_id)), self._last_us + 1)
        self._tell(Entry(Kind.EVENT, self._node, self._run, stamped.call_id, self._last_us / 1e6, fields))

    def recording(self, *, call_id: str, path: str, status: str) -> None:
        """status: recording | complete | failed | refused (no path). Also for calls of an earlier run, whose recording
        was repaired.
        """
        self._write(Kind.RECORDING, call_id, {"path": path, "status": status})

    def ended(self, *, call_id: str, reason: str, sip_code: int) -> None:
        """The call is over; events and the recording's end may still follow. The first end counts."""
        if not self._known(call_id):
            return
        self._write(Kind.CLOSED, call_id, {"reason": reason, "sip_code": sip_code})
        self._ended.append(call_id)
        if len(self._ended) > REMEMBERED:
            forgotten = self._ended.popleft()
            self._next_seq.pop(forgotten, None)
            self._began.pop(forgotten, None)

    def _known(self, call_id: str) -> bool:
        known = call_id in self._next_seq
        self.strays += not known
        return known

    def _write(self, kind: Kind, call_id: str, fields: Mapping[str, Any]) -> None:
        self._tell(Entry(kind, self._node, self._run, call_id, self._moment(call_id), fields))

    def _moment(self, call_id: str) -> float:
        began = self._began.get(call_id)
        return self._now() if began is None else began + self._clock()
