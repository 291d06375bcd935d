"""The plain voice WebSocket: a call for whoever can open one, and which outlives its connection.

Owns the calls that come by it, what was sent and not acknowledged, and the time in which a client may come back.
Refuses to know the messages' letters (`voice_messages`), time (`leg`) and what is done with the call.
"""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from sipserver.audio import tones
from sipserver.errors import BadPayload, CapacityError, NotAllowed
from sipserver.gate.close_codes import Close
from sipserver.gate.connection import Connection
from sipserver.gate.tokens import Claims
from sipserver.log import logger
from sipserver.streams import voice_messages as messages
from sipserver.streams.contract import StreamOffer, WireFormat
from sipserver.streams.doorway import Doorway
from sipserver.streams.leg import StreamLeg

HELLO_S = 10.0
"""How long a client may take for its first message."""
ACK_SAMPLES = 8_000
"""What came is acknowledged every half second."""
MOST_KEPT_S = 6
"""Of what a client has not acknowledged so much is kept for it: the newest. It is sent again at once, and has to fit
into what the gate lets wait (four times `queue_bytes`), as JSON, too.
"""
SURE_SAMPLES = 32_000
"""After a resume no sound is dropped for so long: the queue is filled by what is sent again, not by a slow client."""
WAITING_MS = 8_000
"""So much of a client's sound may come at once, after it was away."""
MOST_MESSAGES = 4_000
"""Kept at most, also of a client that never acknowledges and hears only short ones."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A message that the client may not have got. end: our position after it, in samples. samples: of its own; 0: it
    says something. number: of what is said, from 1.
    """

    end: int
    samples: int
    message: str | bytes
    number: int = 0


class VoiceLine:
    """Satisfies `contract.Line` for as long as the call lives, over one connection after the other. Loop thread."""

    wire: WireFormat = "l16_16"
    marks = True
    can_refer = False

    def __init__(self, lead_ms: int, *, in_json: bool = False) -> None:
        self.lead_ms, self._in_json = lead_ms, in_json
        self.connection: Connection | None = None
        """None while the client is away."""
        self.leg: StreamLeg | None = None
        self.received = 0
        """Samples of the client that have come, without a gap or with what was lost of them."""
        self._sent = 0
        self._acknowledged_at = 0
        self._said = self._sure_to = 0
        self._kept: deque[Kept] = deque()
        self._kept_samples = 0
        self._waiting: dict[str, None] = {}
        self._cleared: set[str] = set()
        self.replayed_samples = 0

    # --- contract.Line ------------------------------------------------------------------------------------------------

    def play(self, payload: bytes) -> None:
        make = messages.media if self._in_json else messages.binary
        message = make(self._sent, payload)
        self._sent += len(payload) // 2
        self._keep(Kept(self._sent, len(payload) // 2, message))
        if self.connection is not None:
            self.connection.send(message, droppable=self._sent > self._sure_to)

    def mark(self, name: str) -> None:
        self._waiting[name] = None
        self._say("mark", name=name)

    def clear(self) -> None:
        """What was sent and not acknowledged is not sent again."""
        self._cleared.update(self._waiting)
        self._waiting.clear()
        self._kept.clear()
        self._kept_samples = 0
        self._say("clear")

    async def press(self, digits: str, duration_ms: int) -> bool:
        self._say("dtmf", digits=digits)
        return True

    async def refer(self, to_uri: str) -> int:
        raise NotAllowed("a voice WebSocket cannot be transferred")

    async def hang_up(self, code: int, reason: str) -> None:
        if self.connection is not None:
            self.connection.send(messages.made("hangup", code=code, reason=reason))
            await self.connection.close(Close.DONE, reason)

    # --- for the server -----------------------------------------------------------------------------------------------

    def show(self, message: Mapping[str, Any]) -> None:
        """Tell the client something about its call; not sent again after a drop."""
        if self.connection is not None:
            self.connection.send(messages.made("event", **message), droppable=True)

    def returned(self, name: str) -> bool:
        """A mark came back. True: its sound was thrown away."""
        self._waiting.pop(name, None)
        known = name in self._cleared
        self._cleared.discard(name)
        return known

    def acknowledged(self, samples: int) -> None:
        """The client has got so many of our samples: what came before them need not be kept. Something said after the
        last of them may still be on its way.
        """
        while self._kept:
            oldest = self._kept[0]
            if oldest.end > samples or (oldest.number and oldest.end == samples):
                return
            self._kept_samples -= self._kept.popleft().samples

    def resend(self, received: int, said: int) -> None:
        """To a client that came back and has got so many samples, and all that was said up to this number."""
        self.acknowledged(received)
        self._kept = deque(kept for kept in self._kept if not 0 < kept.number <= said)
        self.replayed_samples = self._kept_samples
        self._sure_to = self._sent + SURE_SAMPLES
        if self.connection is not None:
            for kept in self._kept:
                self.connection.send(kept.message)

    def take(self, at: int | None, payload: bytes) -> bytes:
        """What is new in sound that begins at this sample, None: at the next one. What came before is left out."""
        at = self.received if at is None else at
        known = max(0, self.received - at) * 2
        self.received = max(self.received, at + len(payload) // 2)
        if self.received - self._acknowledged_at >= ACK_SAMPLES:
            self._acknowledged_at = self.received
            self._send(messages.made("ack", received=self.received))
        return payload[known:]

    def _say(self, kind: str, **fields: Any) -> None:
        """Something that is not lost with a connection: the client tells by `n` whether it has it already."""
        self._said += 1
        text = messages.made(kind, n=self._said, **fields)
        self._keep(Kept(self._sent, 0, text, self._said))
        self._send(text)
        if self.leg is not None:
            self.leg.noted("sent", kind, text)

    def _send(self, text: str) -> None:
        if self.connection is not None:
            self.connection.send(text)

    def _keep(self, kept: Kept) -> None:
        self._kept.append(kept)
        self._kept_samples += kept.samples
        while self._kept_samples > MOST_KEPT_S * 16_000 or len(self._kept) > MOST_MESSAGES:
            self._kept_samples -= self._kept.popleft().samples


class VoiceCall:
    """A call and the connection that it has now. key: what a client shows that comes back."""

    def __init__(self, line: VoiceLine, leg: StreamLeg, home: str) -> None:
        self.line, self.leg = line, leg
        self.key = f"{secrets.token_urlsafe(24)}{home}"
        self._away: asyncio.TimerHandle | None = None

    def came(self, connection: Connection) -> None:
        if self._away is not None:
            self._away.cancel()
            self._away = None
        before, self.line.connection = self.line.connection, connection
        if before is not None:
            before.close_soon(Close.REPLACED)

    def left(self, connection: Connection, resume_s: float) -> None:
        """The connection is over. A client that did not say that it hangs up may come back."""
        if self.line.connection is not connection:
            return
        self.line.connection = None
        by_peer = connection.by_peer
        # a network that swallows all looks like a peer that is silent, or slow while we speak
        lost = (by_peer and connection.code != Close.DONE) or connection.code in (Close.SILENT, Close.TOO_SLOW)
        if not lost or not resume_s:
            self.end(connection.cause or ("the connection was lost" if lost else "hung up"), by_peer=by_peer)
        elif not self.leg.is_gone:
            self.leg.dropped(connection.code, connection.cause)
            self._away = asyncio.get_running_loop().call_later(resume_s, self.end, "the client did not come back")

    def end(self, cause: str, *, by_peer: bool = True) -> None:
        if self._away is not None:
            self._away.cancel()
            self._away = None
        self.leg.gone(0, cause, by_peer=by_peer)


class VoiceServer:
    """`routes`, `close`. Loop thread. A leg is accepted when its client has said hello."""

    def __init__(self, doorway: Doorway) -> None:
        self._doorway, self._settings, self._gate = doorway, doorway.settings, doorway.gate
        self._calls: dict[str, VoiceCall] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = logger("streams")

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/ws/voice/{call_id}", self._serve)]

    async def close(self) -> None:
        """End the calls that wait for their clients."""
        for call in list(self._calls.values()):
            call.end("the server is shutting down", by_peer=False)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _until_gone(self, call_id: str, leg: StreamLeg) -> None:
        try:
            await leg.ended()
        finally:
            del self._calls[call_id]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        call_id = _call_id(request.match_info["call_id"])
        live = self._calls.get(call_id)
        if live is not None:
            if not secrets.compare_digest(live.key, request.query.get("resume", "")):
                raise NotAllowed("this call lives already; its `resume` key opens it")
            async with self._gate.open(request, kind="voice", tenant=live.leg.offer.tenant) as connection:
                await self._resume(connection, live)
            return connection.response
        if not self._doorway.room():
            raise CapacityError("no room for one more call")
        claims = await self._gate.tokens.claim(self._gate.token_of(request), "voice")
        if claims.call_id not in ("", call_id):
            raise NotAllowed("the token is for another call")
        async with self._gate.open(request, kind="voice", tenant=claims.tenant) as connection:
            await self._begin(connection, claims, call_id)
        return connection.response

    async def _begin(self, connection: Connection, claims: Claims, call_id: str) -> None:
        hello = await self._first(connection, "start")
        if hello is None:
            return
        if call_id in self._calls:
            raise NotAllowed("this call lives already")
        line = VoiceLine(self._settings.voice.lead_ms, in_json=hello.get("sound") == "json")
        line.leg = leg = StreamLeg(
            _offer(claims, hello, connection.peer, call_id),
            line,
            self._doorway.clock,
            stalled_s=self._settings.stalled_s,
            record_messages=self._settings.record_messages,
            waiting_ms=WAITING_MS,
        )
        leg.round_trip_ms = lambda: None if line.connection is None else line.connection.round_trip_ms
        leg.replayed_ms = lambda: line.replayed_samples // 16
        leg.show = line.show if hello.get("events") is True else None
        call = self._calls[call_id] = VoiceCall(line, leg, self._doorway.home)
        task = asyncio.create_task(self._until_gone(call_id, leg), name="voice call")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        call.came(connection)
        connection.send(
            messages.made("started", call_id=call_id, resume=call.key, resume_s=self._settings.voice.resume_s)
        )
        try:
            self._doorway.accept(leg, claims)
        except BaseException:
            call.end("not taken", by_peer=False)
            raise
        leg.connected()
        await self._listen(connection, call)

    async def _resume(self, connection: Connection, call: VoiceCall) -> None:
        hello = await self._first(connection, "resume")
        if hello is None or call.leg.is_gone:
            return
        received, said = messages.number(hello, "received"), messages.number(hello, "said")
        call.came(connection)
        connection.send(messages.made("resumed", received=call.line.received))
        call.line.resend(received, said)
        call.leg.connected()
        await self._listen(connection, call)

    async def _first(self, connection: Connection, kind: str) -> Mapping[str, Any] | None:
        """The message that begins; None when the client left before. Raises BadPayload, NotAllowed."""
        try:
            async with asyncio.timeout(HELLO_S):
                message = await connection.receive()
        except TimeoutError:
            raise NotAllowed(f"no `{kind}` within {HELLO_S:g} s") from None
        if message is None:
            return None
        if not isinstance(message, str):
            raise BadPayload(f"sound before `{kind}`")
        body = messages.parse(message)
        if body["type"] != kind:
            raise BadPayload(f"`{body['type']}` before `{kind}`")
        return body

    async def _listen(self, connection: Connection, call: VoiceCall) -> None:
        leg = call.leg
        try:
            async for message in connection:
                try:
                    if isinstance(message, bytes):
                        self._heard(call, *messages.sound(message))
                    else:
                        await self._told(messages.parse(message), call, connection)
                except BadPayload as problem:
                    leg.misread()
                    self._log.debug("a message that cannot be read", error=str(problem))
        finally:
            call.left(connection, self._settings.voice.resume_s)

    @staticmethod
    def _heard(call: VoiceCall, at: int | None, payload: bytes) -> None:
        if sound := call.line.take(at, payload):
            call.leg.heard(sound)

    async def _told(self, body: Mapping[str, Any], call: VoiceCall, connection: Connection) -> None:
        match body["type"]:
            case "media":
                self._heard(call, *messages.sound_in(body))
            case "ack":
                call.line.acknowledged(messages.number(body, "received"))
            case "mark":
                name = str(body.get("name", ""))
                call.leg.marked(name, cleared=call.line.returned(name))
            case "dtmf":
                for digit in str(body.get("digits", "")).upper()[:64]:
                    if digit in tones.DIGITS:
                        call.leg.pressed(digit)
            case "ping":
                connection.send(messages.made("pong", at=body.get("at")))
            case "hangup" | "stop":
                call.end("hung up")
                await connection.close(Close.DONE)
            case _:
                call.leg.misread(unknown=True)


def _call_id(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise BadPayload("the id of a call is a UUID") from None


def _offer(claims: Claims, hello: Mapping[str, Any], peer: str, call_id: str) -> StreamOffer:
    given = hello.get("variables")
    variables = {str(name): str(value) for name, value in given.items()} if isinstance(given, dict) else {}
    user = claims.from_user or "anonymous"
    return StreamOffer(
        direction="inbound",
        from_uri=f"sip:{user}@voice.invalid",
        from_user=user,
        to_uri=f"sip:{claims.to}@voice.invalid",
        to_user=claims.to,
        source=peer,
        sip_call_id=call_id,
        trunk=claims.trunk,
        variables={**variables, **claims.variables},
        call_id=call_id,
        tenant=claims.tenant,
    )
