"""Calls by REST: place, list, look at, read what was said, fetch the recording, hang up.

Owns that a tenant's key reaches this tenant's calls alone: all else is as if it were not there (404). Refuses to know
where calls live (`asking`) and how they are kept (`store.reader`).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web

from sipserver.api.rest import models
from sipserver.api.rest.errands import errands
from sipserver.api.rest.operations import Answered, Asked, Does, Operation
from sipserver.api.rest.problems import problem
from sipserver.api.sounds.fetching import Fetching
from sipserver.api.sounds.here import Sounds
from sipserver.api.sounds.tickets import Sound
from sipserver.errors import CallerError, NotFound, SipServerError
from sipserver.store import transcript
from sipserver.store.reader import CallRow, EventRow, Filter, Reader
from sipserver.tenants import sound_files
from sipserver.tenants.keys import Scope

MOST_LINES = 10_000
NEW_S, LOOK_S, LOOKS = 10.0, 0.05, 40
"""For so long a call is new; the record of such a one is looked for again, so often."""


class Calls(Protocol):
    """As `asking.Here` and `asking.Everywhere` are."""

    async def originate(self, wanted: Any) -> str: ...

    async def ask(self, call_id: str, verb: str, **arguments: Any) -> Any: ...


class CallOperations:
    """Loop thread. sounds: on this machine. elsewhere: on others; None: there are none."""

    def __init__(self, reader: Reader, calls: Calls, sounds: Sounds, elsewhere: Fetching | None = None) -> None:
        self._reader, self._calls = reader, calls
        self._sounds, self._elsewhere = sounds, elsewhere

    def operations(self) -> Sequence[Operation]:
        read, write = Scope.CALLS_READ, Scope.CALLS_WRITE
        return [
            Operation(
                "createCall",
                "POST",
                "/calls/create",
                write,
                self._create,
                "Place a call",
                "Answers when the call is on its way; what becomes of it is in its events. With an Idempotency-Key the "
                "same request may be sent again: there is one call. 200: it was placed before.",
                body=models.CreateCall,
                answer=models.CallCreated,
                status=201,
                refusals=(400, 404, 409, 502),
                deed="call.created",
                of="call",
                shows=("flow", "trunk", "detect_answerer"),
                finds=self._created_before,
            ),
            Operation(
                "listCalls",
                "GET",
                "/calls",
                read,
                self._list,
                "List calls, the newest first",
                query=models.CallsAsked,
                answer=models.CallPage,
                refusals=(400,),
            ),
            Operation("getCall", "GET", "/calls/{id}", read, self._get, "Look at a call", answer=models.Call),
            Operation(
                "getCallStatus", "GET", "/calls/{id}/status", read, self._get, "Look at a call", answer=models.Call
            ),
            Operation(
                "listCallEvents",
                "GET",
                "/calls/{id}/events",
                Scope.EVENTS_READ,
                self._events,
                "Read what happened in a call",
                query=models.EventsAsked,
                answer=models.CallEvents,
                deed="events.read",
                of="call",
            ),
            Operation(
                "getCallTranscript",
                "GET",
                "/calls/{id}/transcript",
                Scope.EVENTS_READ,
                self._transcript,
                "Read what was said in a call",
                answer=models.CallTranscript,
                deed="transcript.read",
                of="call",
            ),
            Operation(
                "getCallRecording",
                "GET",
                "/calls/{id}/recording",
                Scope.RECORDINGS_READ,
                self._recording,
                "Fetch the recording of a call",
                "A WAV file, whichever machine has it. `Range` is understood. 503: the machine that has it does not "
                "answer (`Retry-After`), or it is encrypted, and its key is not there.",
                query=models.RecordingAsked,
                media_type="audio/x-wav",
                also={206: "The part that `Range` names"},
                refusals=(409, 416, 503),
                deed="recording.read",
                of="call",
            ),
            *errands(self._sends),
            Operation(
                "endCall",
                "DELETE",
                "/calls/{id}",
                write,
                self._end,
                "Hang up",
                "A call that is over already is no error.",
                status=204,
                deed="call.ended",
                of="call",
            ),
        ]

    # --- new calls ----------------------------------------------------------------------------------------------------

    async def _create(self, asked: Asked) -> Answered:
        wanted: models.CreateCall = asked.body
        order = {
            "to": wanted.to,
            "tenant": asked.key.tenant,
            "flow": wanted.flow,
            "trunk": wanted.trunk,
            "from_user": wanted.from_,
            "from_display": wanted.from_display,
            "headers": wanted.headers,
            "ring_s": wanted.ring_s,
            "variables": wanted.variables,
            "call": asked.call_id,
            **({"amd": {}} if wanted.detect_answerer else {}),
        }
        return _created(await self._calls.originate(order), 201)

    async def _created_before(self, asked: Asked, call_id: str) -> Answered | None:
        """Raises BusDown where nobody knows."""
        row = await self._reader.get(call_id)
        if row is None:
            try:
                await self._calls.ask(call_id, "status")
            except SipServerError as refusal:
                if refusal.http_code == 404:
                    return None
                raise
        return _created(call_id, 200)

    # --- what there is ------------------------------------------------------------------------------------------------

    async def _list(self, asked: Asked) -> Answered:
        wanted: models.CallsAsked = asked.query
        rows = await self._reader.page(
            asked.key.tenant,
            Filter(
                direction=wanted.direction or "",
                from_user=wanted.from_,
                to_user=wanted.to,
                open=wanted.open,
                end_reason=wanted.end_reason,
                since=models.aware(wanted.since),
                until=models.aware(wanted.until),
            ),
            after=_cursor(wanted.cursor),
            limit=wanted.limit + 1,
        )
        page = rows[: wanted.limit]
        more = _next(page[-1]) if len(rows) > len(page) else None
        return Answered(models.CallPage(calls=list(map(_call, page)), next=more))

    async def _get(self, asked: Asked) -> Answered:
        found = await self._row_or_live(asked)
        return Answered(_call(found) if isinstance(found, CallRow) else found)

    async def _events(self, asked: Asked) -> Answered:
        row = await self._row(asked)
        wanted: models.EventsAsked = asked.query
        events = await self._reader.events(row.id, after_seq=wanted.after, limit=wanted.limit)
        return Answered(models.CallEvents(events=list(map(_event, events)), more=len(events) == wanted.limit))

    async def _transcript(self, asked: Asked) -> Answered:
        row = await self._row(asked)
        events = await self._reader.events(row.id, kinds=transcript.KINDS, limit=MOST_LINES)
        said = [line for event in events if (line := transcript.line(event)) is not None]
        lines = [models.Said(at_ms=line.at_ms, who=line.who, text=line.text) for line in said]
        return Answered(models.CallTranscript(lines=lines))

    async def _recording(self, asked: Asked) -> web.StreamResponse:
        row = await self._row(asked)
        if not row.recording_path:
            full = row.recording_status == "refused"
            raise NotFound("the call was not recorded: no more may be kept" if full else "this call was not recorded")
        wanted: models.RecordingAsked = asked.query
        last = Path(row.recording_path)
        place = last if not wanted.number else sound_files.numbered(last, row.id, wanted.number)
        if place is None:
            raise NotFound(f"the call has no recording {wanted.number}")
        if place == last and row.recording_status == "recording":
            return problem(409, "the call is still being recorded")
        whole = place == last and row.recording_status == "complete"
        path = await self._sounds.find(str(place))
        if path is not None:
            name = sound_files.wav_name(place)
            return await self._sounds.answer(
                asked.request, path, tenant=row.tenant, whole=whole, name=name, before=asked.noted
            )
        if self._elsewhere is None:
            raise NotFound(f"the recording is not on this machine: {row.node} made it")
        there = Sound(row.node, row.tenant, row.id, str(place), whole)
        return await self._elsewhere.answer(asked.request, there, asked.noted)

    async def _end(self, asked: Asked) -> Answered:
        call_id = _id(asked)
        await self._row_or_live(asked)
        try:
            await self._calls.ask(call_id, "hangup", detail=asked.key.called)
        except SipServerError as refusal:
            if refusal.http_code != 404:
                raise
        return Answered(None, 204)

    def _sends(self, verb: str, **fixed: Any) -> Does:
        """What an errand does: the options of its body, and these, to the call."""

        async def send(asked: Asked) -> Answered | web.StreamResponse:
            options = {} if asked.body is None else asked.body.model_dump(exclude_unset=True)
            return await self._send(asked, verb, {**options, **fixed})

        return send

    async def _send(self, asked: Asked, verb: str, options: dict[str, Any]) -> Answered | web.StreamResponse:
        call_id = _id(asked)
        await self._row_or_live(asked)
        try:
            await self._calls.ask(call_id, verb, **options)
        except SipServerError as refusal:
            if refusal.http_code == 404:
                return problem(409, "the call is over")
            raise
        return Answered(models.Accepted(id=call_id), 202)

    # --- inside -------------------------------------------------------------------------------------------------------

    async def row_of(self, asked: Asked) -> CallRow:
        """The record of the call in the path, for operations of others. Raises NotFound, as all of these do."""
        return await self._row(asked)

    async def _row(self, asked: Asked) -> CallRow:
        """Raises NotFound, also for a call of another tenant."""
        call_id = _id(asked)
        row = await self._reader.get(call_id)
        for _ in range(LOOKS if row is None and _may_be_new(call_id) else 0):
            await asyncio.sleep(LOOK_S)
            if (row := await self._reader.get(call_id)) is not None:
                break
        if row is None or row.tenant != asked.key.tenant:
            raise NotFound("there is no such call")
        return row

    async def _row_or_live(self, asked: Asked) -> CallRow | models.Call:
        """A call whose record is not written yet is asked itself. Raises NotFound."""
        call_id, tenant = _id(asked), asked.key.tenant
        row = await self._reader.get(call_id)
        if row is not None:
            if row.tenant != tenant:
                raise NotFound("there is no such call")
            return row
        try:
            live = await self._calls.ask(call_id, "status")
        except SipServerError as refusal:
            if refusal.http_code == 404:
                return await self._row(asked)  # it may have ended before its record was written
            raise
        if live["tenant"] != tenant:
            raise NotFound("there is no such call")
        return _of_live(live)


def _of_live(live: Mapping[str, Any]) -> models.Call:
    began = datetime.now(UTC) - timedelta(milliseconds=live["since_ms"])
    answered_ms = live.get("answered_ms")
    return models.Call(
        id=live["id"],
        direction=live["direction"],
        from_uri=live["from_uri"],
        to_uri=live["to_uri"],
        state=live["state"],
        started_at=began,
        answered_at=None if answered_ms is None else began + timedelta(milliseconds=answered_ms),
        sip_call_id=live["sip_call_id"],
    )


def _may_be_new(call_id: str) -> bool:
    """Whether its record may still be on the way: a UUID tells when it was made (RFC 9562, 5.7)."""
    known = uuid.UUID(call_id)
    return known.version == 7 and abs((known.int >> 80) / 1000 - time.time()) < NEW_S


def _id(asked: Asked) -> str:
    try:
        return str(uuid.UUID(asked.path["id"]))
    except ValueError:
        raise NotFound("there is no such call") from None


def _created(call_id: str, status: int) -> Answered:
    url = f"/api/v1/calls/{call_id}"
    return Answered(models.CallCreated(id=call_id, url=url), status, {"Location": url})


def _call(row: CallRow) -> models.Call:
    return models.Call(
        id=row.id,
        direction=row.direction,
        from_uri=row.from_uri,
        to_uri=row.to_uri,
        state=row.state,
        started_at=row.started_at,
        answered_at=row.answered_at,
        ended_at=row.ended_at,
        end_reason=row.end_reason,
        sip_code=row.sip_code,
        sip_call_id=row.sip_call_id,
        flow=row.flow,
        recording=row.recording_status,
        mos=row.mos,
        turns=row.turns,
        digits=row.digits,
        faults=row.faults,
    )


def _event(row: EventRow) -> models.CallEvent:
    moment = None if row.at_us is None else datetime.fromtimestamp(row.at_us / 1e6, UTC)
    return models.CallEvent(seq=row.seq, at_ms=row.at_ms, kind=row.kind, timestamp=moment, fields=row.fields)


def _next(row: CallRow) -> str:
    return base64.urlsafe_b64encode(f"{row.started_at.isoformat()} {row.id}".encode()).decode()


def _cursor(text: str) -> tuple[datetime, str] | None:
    """Raises CallerError for what no page gave."""
    if not text:
        return None
    try:
        moment, _, call_id = base64.b64decode(text, altchars=b"-_", validate=True).decode().partition(" ")
        return datetime.fromisoformat(moment).astimezone(UTC), call_id
    except (ValueError, binascii.Error, OverflowError):
        raise CallerError("`cursor` is the `next` of a page before, unchanged") from None
