"""What a call used, by part, and how many bytes of sound are kept of it, from its row and its events; and the rows that
say so when it is over. Exactly once, because it is a function of what is recorded: made anew when a call is over, and
again when an event comes later.

Owns which event says what was used. Refuses to know prices. Quantities only grow; what is kept goes with the sound.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from sipserver import events as happened
from sipserver.store.parts import UNITS
from sipserver.store.schema import events, stored, usage

SAMPLES_A_MS = 16
_SAMPLE_BYTES, _HEADER_BYTES = 2, 44
RECORDING, VOICEMAIL = "recording", "voicemail"
"""Kinds of sound that is kept."""
_WIDTHS = {"leg": 64, "engine": 128, "vendor": 64, "model": 128}
_FIRST = happened.CallStarted, happened.CallCarried, happened.PartyDialed, happened.LegAnswered
_FURTHER = happened.LegDisconnected, happened.EngineUsed, happened.ModelSpan, happened.VoicemailLeft
_RECORDING = happened.RecordingStarted, happened.RecordingStopped, happened.RecordingFailed
KINDS = tuple(each.kind for each in (*_FIRST, *_FURTHER, *_RECORDING))


@dataclass(frozen=True, slots=True)
class Item:
    """What a quantity is of. leg: of another party. engine: or the trunk."""

    part: str
    leg: str = ""
    engine: str = ""
    vendor: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """An event of the call, of one of KINDS."""

    at_ms: int
    kind: str
    fields: Mapping[str, Any]


async def settle(connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Note what calls that are over have used, and what is kept of them. rows: columns of `calls`, whose rows the
    transaction has locked: so what is noted last is of all events.
    """
    if not rows:
        return
    query = (
        sa.select(events.c.call_id, events.c.at_ms, events.c.kind, events.c.fields)
        .where(events.c.call_id.in_([row["id"] for row in rows]), events.c.kind.in_(KINDS))
        .order_by(events.c.call_id, events.c.seq)
    )
    open_accounts = {row["id"]: Account() for row in rows}
    for call_id, at_ms, kind, fields in await connection.execute(query):
        open_accounts[call_id].take(Told(at_ms, kind, fields))
    accounts = [(row, open_accounts[row["id"]].closed(row, row["ended_at"])) for row in rows]
    new = [
        {
            "call_id": row["id"],
            "tenant": row["tenant"],
            "at": row["started_at"],
            "part": item.part,
            **{name: getattr(item, name)[:width] for name, width in _WIDTHS.items()},
            "quantity": quantity,
            "unit": UNITS[item.part],
            "metered": 0,
            "metering": 0,
        }
        for row, account in accounts
        for item, quantity in account.used.items()
    ]
    if new:
        await connection.execute(_upsert(connection.dialect.name), new)
    sound = [
        {"call_id": row["id"], "kind": kind, "tenant": row["tenant"], "bytes": size}
        for row, account in accounts
        for kind, size in account.kept.items()
    ]
    if sound:
        await connection.execute(_upsert_stored(connection.dialect.name), sound)


@functools.cache
def _upsert(dialect: str) -> Any:
    statement = (postgresql if dialect == "postgresql" else sqlite).insert(usage)
    quantity = statement.excluded.quantity
    keys = [column.name for column in usage.primary_key]
    return statement.on_conflict_do_update(
        index_elements=keys, set_={"quantity": quantity}, where=quantity > usage.c.quantity
    )


@functools.cache
def _upsert_stored(dialect: str) -> Any:
    statement = (postgresql if dialect == "postgresql" else sqlite).insert(stored)
    keys = [column.name for column in stored.primary_key]
    return statement.on_conflict_do_update(index_elements=keys, set_={"bytes": statement.excluded.bytes})


class Account:
    """Of one call. `take` its events in order, ask what is `closed`. Pure."""

    def __init__(self) -> None:
        self._used: Counter[Item] = Counter()
        self._kept: Counter[str] = Counter()
        self._trunk = ""
        self._trunks: dict[str, str] = {}
        """By party."""
        self._talking: dict[str, int] = {}
        """By party: when it answered."""
        self._tapes: dict[str, tuple[int, int]] = {}
        """By path: when it began, and its channels."""

    def take(self, event: Told) -> None:
        """An event that is not as it should be says nothing."""
        try:
            self._take(event)
        except (LookupError, TypeError, ValueError):
            return

    def _take(self, event: Told) -> None:
        fields = event.fields
        match event.kind:
            case happened.CallStarted.kind | happened.CallCarried.kind:
                self._trunk = str(fields.get("trunk", ""))
            case happened.PartyDialed.kind:
                self._trunks[str(fields["party"])] = str(fields.get("trunk", ""))
            case happened.LegAnswered.kind if fields.get("leg"):
                self._talking.setdefault(str(fields["leg"]), event.at_ms)
            case happened.LegDisconnected.kind if fields.get("leg"):
                self._hung_up(str(fields["leg"]), event.at_ms)
            case happened.EngineUsed.kind if fields["part"] in ("stt", "tts"):
                self._used[self._by_engine(fields["part"], fields)] += _count(fields["quantity"])
            case happened.ModelSpan.kind:
                self._thought(fields)
            case happened.RecordingStarted.kind:
                self._tapes[str(fields["path"])] = event.at_ms, int(fields.get("channels", 2))
            case happened.RecordingStopped.kind:
                channels = self._tapes.pop(str(fields["path"]), (0, 2))[1]
                self._recorded(RECORDING, _count(fields["samples"]) // SAMPLES_A_MS, channels)
            case happened.RecordingFailed.kind:
                self._cut_off(str(fields["path"]), event.at_ms)
            case happened.VoicemailLeft.kind:
                self._recorded(VOICEMAIL, _count(fields["duration_ms"]), 1)
            case _:
                pass

    @property
    def used(self) -> Mapping[Item, int]:
        """By item."""
        return {item: quantity for item, quantity in self._used.items() if quantity}

    @property
    def kept(self) -> Mapping[str, int]:
        """Bytes of sound that are there still, by kind."""
        return {kind: size for kind, size in self._kept.items() if size}

    def closed(self, row: Mapping[str, Any], ended_at: datetime) -> Account:
        """One that says what the call has used if it ends then, or ended. This one can go on. row: columns of the
        call.
        """
        account = Account()
        account._used, account._kept = self._used.copy(), self._kept.copy()
        account._trunk, account._trunks = self._trunk, self._trunks
        account._talking, account._tapes = self._talking.copy(), self._tapes.copy()
        account._close(row, ended_at)
        return account

    def _close(self, row: Mapping[str, Any], ended_at: datetime) -> None:
        ended_ms = _milliseconds(ended_at - row["started_at"])
        for leg in tuple(self._talking):
            self._hung_up(leg, ended_ms)
        for path in tuple(self._tapes):
            self._cut_off(path, ended_ms)
        answered: datetime | None = row["answered_at"]
        if answered is not None:
            part = "call.outbound" if row["direction"] == "outbound" else "call.inbound"
            self._used[Item(part, engine=self._trunk)] = max(0, _milliseconds(ended_at - answered))
        if row["recording_path"] is None:  # deleted since, or never begun
            self._kept.pop(RECORDING, None)

    def _hung_up(self, leg: str, at_ms: int) -> None:
        since_ms = self._talking.pop(leg, None)
        if since_ms is not None:
            self._used[Item("leg", leg, self._trunks.get(leg, ""))] += max(0, at_ms - since_ms)

    def _thought(self, fields: Mapping[str, Any]) -> None:
        tokens = fields.get("tokens_in"), fields.get("tokens_out")
        if tokens != (None, None):
            for part, count in zip(("llm.in", "llm.out"), tokens, strict=True):
                self._used[self._by_engine(part, fields)] += _count(count or 0)
        elif fields["outcome"] != "failed":
            self._used[self._by_engine("llm.untold", fields)] += 1

    def _cut_off(self, path: str, at_ms: int) -> None:
        """A file whose end nobody told is as long as it ran."""
        began = self._tapes.pop(path, None)
        if began is not None:
            self._recorded(RECORDING, max(0, at_ms - began[0]), began[1])

    def _recorded(self, kind: str, ms: int, channels: int) -> None:
        self._used[Item("recording")] += ms
        size = ms * SAMPLES_A_MS * _SAMPLE_BYTES * channels + _HEADER_BYTES if ms else 0
        self._used[Item("recording.size")] += size
        self._kept[kind] += size

    @staticmethod
    def _by_engine(part: str, fields: Mapping[str, Any]) -> Item:
        engine, vendor, model = (str(fields.get(name, "")) for name in ("engine", "vendor", "model"))
        return Item(part, "", engine, vendor, model)


def _count(value: Any) -> int:
    return max(0, int(value))


def _milliseconds(span: timedelta) -> int:
    return span // timedelta(milliseconds=1)
