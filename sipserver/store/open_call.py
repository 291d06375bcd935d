"""A call's row in memory: what the sink's methods and the events say, folded into columns. Knows no database."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sipserver import events
from sipserver.store.schema import calls


class OpenCall:
    """`row` holds every column. dirty: it differs from what the database has."""

    def __init__(self, **facts: Any) -> None:
        self.row: dict[str, Any] = {column.name: None for column in calls.columns}
        self.row.update(state="ringing", turns=0, digits=0, faults=0, events=0, events_dropped=0)
        self.row.update({key: fitting(key, value) for key, value in facts.items()})
        self.dirty = True
        self.next_seq = 0

    def set(self, **columns: Any) -> None:
        self.row.update({key: fitting(key, value) for key, value in columns.items()})
        self.dirty = True

    def answered(self, at: datetime) -> None:
        self.set(answered_at=at, state="answered")

    def ended(self, at: datetime, reason: str, sip_code: int) -> None:
        self.set(ended_at=at, end_reason=reason, sip_code=sip_code, state="ended")

    def note(self, event: events.Event, *, dropped: bool) -> int:
        """Count the event and take from it what the row shows; returns the event's seq."""
        row = self.row
        row["events_dropped" if dropped else "events"] += 1
        match event:
            case events.CallStateChanged(new=new):
                row["state"] = fitting("state", new)
            case events.CallRouted(route=route, flow=flow):
                row.update(route=route, flow=fitting("flow", flow))
            case events.RtpStats(received=received, lost=lost, jitter_ms=jitter_ms, mos=mos):
                row.update(rtp_received=received, rtp_lost=lost, jitter_ms=jitter_ms)
                row["mos"] = mos if mos is not None else row["mos"]
            case events.TurnEnded():
                row["turns"] += 1
            case events.DigitReceived():
                row["digits"] += 1
            case _ if event.kind.startswith("fault."):
                row["faults"] += 1
        self.dirty = True
        seq = self.next_seq
        self.next_seq += 1
        return seq


def fitting(column: str, value: Any) -> Any:
    """Text as both databases take it: no NUL, no half characters, no longer than its column."""
    if not isinstance(value, str):
        return value
    clean = value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
    return clean[: getattr(calls.c[column].type, "length", None)]
