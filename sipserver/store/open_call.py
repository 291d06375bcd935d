"""A call's row in memory: what the journal says about the call, folded into columns. Knows no database.

Folding an entry twice changes nothing: the row's counts say which event is the next one.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sipserver import events
from sipserver.journal import Entry, Kind, micros
from sipserver.store.schema import calls

CRASH = "crash"
REFUSED = "refused"

Row = dict[str, Any]


class OpenCall:
    """`row` holds every column. dirty: it differs from what the database has."""

    def __init__(self, row: Row, *, dirty: bool = False) -> None:
        """From a row of the database, which becomes ours."""
        self.row = row
        self.dirty = dirty

    @classmethod
    def opened(cls, entry: Entry) -> OpenCall:
        """A new call, from its OPENED."""
        row: Row = dict.fromkeys(_COLUMNS)
        row.update(state="ringing", turns=0, digits=0, faults=0, events=0, events_dropped=0)
        facts = {"id": entry.call_id, "node": entry.node, "run": entry.run}
        facts |= {name: str(entry.fields.get(name, "")) for name in _FACTS}
        row.update({name: fitting(name, value) for name, value in facts.items()})
        row["started_at"] = moment(entry.at)
        return cls(row, dirty=True)

    @property
    def next_seq(self) -> int:
        return int(self.row["events"] + self.row["events_dropped"])

    @property
    def over(self) -> bool:
        return self.row["ended_at"] is not None

    def fold(self, entry: Entry) -> Row | None:
        """Take over what an entry of this call says; returns the row of its event if it is a new one.

        What a process tells about a call that was closed for it as crashed shows that it lives: its word counts.
        """
        fields = entry.fields
        match entry.kind:
            case Kind.ANSWERED if self.row["answered_at"] is None:
                self._set(answered_at=moment(entry.at), state="answered")
            case Kind.EVENT:
                return self._event(entry.at, fields)
            case Kind.RECORDING:
                self._recording(str(fields["path"]), str(fields["status"]))
            case Kind.CLOSED if not self.over or self.row["end_reason"] == CRASH:
                self._set(
                    ended_at=moment(entry.at),
                    end_reason=str(fields["reason"]),
                    sip_code=int(fields["sip_code"]),
                    state="ended",
                )
            case _:
                pass
        return None

    def _event(self, at: float, told: Mapping[str, Any]) -> Row | None:
        seq, at_ms, kind, fields = int(told["seq"]), int(told["at_ms"]), str(told["kind"]), told["fields"]
        if self.row["end_reason"] == CRASH and seq >= self.next_seq - 1:
            self._reopen()
        if seq < self.next_seq:
            return None
        self.row["events_dropped"] += seq - self.next_seq  # what is missing was lost on the way
        self.row["events"] += 1
        self._note(kind, fields)
        self.dirty = True
        return {
            "call_id": self.row["id"],
            "seq": seq,
            "at_ms": at_ms,
            "kind": _clean(kind),
            "fields": dict(fields),
            "at_us": micros(at),
        }

    def _note(self, kind: str, fields: Mapping[str, Any]) -> None:
        """What the row shows of an event."""
        row = self.row
        match kind:
            case events.CallStateChanged.kind:
                row["state"] = fitting("state", fields.get("new", row["state"]))
            case events.CallRouted.kind:
                row.update(route=fields.get("route"), flow=fitting("flow", fields.get("flow")))
            case events.RtpStats.kind:
                row.update(rtp_received=fields.get("received"), rtp_lost=fields.get("lost"))
                row["jitter_ms"] = fields.get("jitter_ms")
                row["mos"] = row["mos"] if fields.get("mos") is None else fields["mos"]
            case events.TurnEnded.kind:
                row["turns"] += 1
            case events.DigitReceived.kind:
                row["digits"] += 1
            case _ if kind.startswith("fault."):
                row["faults"] += 1

    def _recording(self, path: str, status: str) -> None:
        """What is told again of its beginning does not undo its end. One that was refused is no file."""
        if status == REFUSED:
            if self.row["recording_status"] is None:
                self._set(recording_status=status)
            return
        ended = self.row["recording_status"] in ("complete", "failed")
        if not (ended and status == "recording" and self.row["recording_path"] == fitting("recording_path", path)):
            self._set(recording_path=path, recording_status=status)

    def _reopen(self) -> None:
        """The next event takes the place of the one that told of the crash."""
        self.row["events"] -= 1
        state = "answered" if self.row["answered_at"] else "ringing"
        self._set(ended_at=None, end_reason=None, sip_code=None, state=state)

    def _set(self, **columns: Any) -> None:
        fit = {name: fitting(name, value) for name, value in columns.items()}
        if any(self.row[name] != value for name, value in fit.items()):
            self.row.update(fit)
            self.dirty = True


def moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def fitting(column: str, value: Any) -> Any:
    """Text as both databases take it: no NUL, no half characters, no longer than its column."""
    return _clean(value)[: _LENGTHS[column]] if isinstance(value, str) else value


def _clean(text: str) -> str:
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


_COLUMNS = tuple(column.name for column in calls.columns)
_LENGTHS: dict[str, int | None] = {column.name: getattr(column.type, "length", None) for column in calls.columns}
_FACTS = ("tenant", "direction", "from_uri", "to_uri", "source", "sip_call_id")
