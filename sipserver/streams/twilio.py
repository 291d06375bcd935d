"""Twilio's end of a call: a WebSocket that speaks Media Streams, as a leg.

Owns what Twilio's messages mean for a leg, and who is let in: a stream shows the one-time token that our webhook put
into its TwiML. Refuses to know the messages' letters (`twilio_messages`), time (`leg`) and what is done with the call.

A call is answered when its stream begins. The stream is the last verb of our TwiML, so that closing it ends the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

from sipserver.errors import BadPayload, CapacityError, NotAllowed, NotFound
from sipserver.gate.close_codes import Close
from sipserver.gate.connection import Connection
from sipserver.gate.gate import Gate
from sipserver.gate.tokens import Claims
from sipserver.log import logger
from sipserver.streams import twilio_messages as messages
from sipserver.streams.clock import StreamClock
from sipserver.streams.contract import StreamOffer, WireFormat
from sipserver.streams.leg import Accept, StreamLeg
from sipserver.streams.settings import StreamSettings, TwilioAccount

START_S = 10.0
"""How long a stream may take to say `start`."""

TOKEN = "token"  # noqa: S105 # nosec B105 - the name of a parameter
OWN = "sipserver_"
"""Parameters of ours in the TwiML begin so; the others become variables of the dialplan."""


class TwilioLine:
    """Satisfies `contract.Line` over one connection. Loop thread."""

    wire: WireFormat = "mulaw8"
    marks = True
    can_refer = False

    def __init__(self, connection: Connection, stream_sid: str, lead_ms: int) -> None:
        self._connection, self._stream_sid, self.lead_ms = connection, stream_sid, lead_ms
        self._before, self._after = messages.media_maker(stream_sid)
        self._cleared: set[str] = set()
        self._waiting: dict[str, None] = {}
        self.told: StreamLeg | None = None

    def play(self, payload: bytes) -> None:
        """Dropped, and counted by the connection, while Twilio does not take what we send."""
        self._connection.send(f"{self._before}{messages.base64_of(payload)}{self._after}", droppable=True)

    def mark(self, name: str) -> None:
        self._waiting[name] = None
        self._say("mark", messages.mark(self._stream_sid, name), name)

    def clear(self) -> None:
        """Twilio returns the marks of what it throws away at once: those that are out now will not have been heard."""
        self._cleared.update(self._waiting)
        self._waiting.clear()
        self._say("clear", messages.clear(self._stream_sid))

    def returned(self, name: str) -> bool:
        """A mark came back. True: its sound was thrown away."""
        self._waiting.pop(name, None)
        if name in self._cleared:
            self._cleared.discard(name)
            return True
        return False

    async def press(self, digits: str, duration_ms: int) -> bool:
        """Media Streams carry no digits towards the caller: tones do."""
        return False

    async def refer(self, to_uri: str) -> int:
        raise NotFound("a stream cannot be transferred")

    async def hang_up(self, code: int, reason: str) -> None:
        """Twilio goes on with the TwiML, in which nothing follows: it hangs up."""
        await self._connection.close(Close.DONE, reason)

    def _say(self, summary: str, text: str, name: str = "") -> None:
        self._connection.send(text)
        if self.told is not None:
            self.told.noted("sent", f"{summary} {name}".strip(), text)


class TwilioServer:
    """`routes`: where Twilio's streams connect. Loop thread. accept: takes a leg when its stream begins.

    room: whether one more call may come now.
    """

    def __init__(
        self, settings: StreamSettings, gate: Gate, clock: StreamClock, accept: Accept, room: Callable[[], bool]
    ) -> None:
        self._settings, self._gate, self._clock, self._accept, self._room = settings, gate, clock, accept, room
        self._accounts = {account.name: account for account in settings.twilio}
        self._log = logger("streams")

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/ws/twilio/{account}", self._serve)] if self._accounts else []

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        account = self._accounts.get(request.match_info["account"])
        if account is None:
            raise NotFound("no such account")
        if not self._room():
            raise CapacityError(f"{self._settings.calls} calls are there already")
        async with self._gate.open(request, kind="twilio", takes="text") as connection:
            await self._call(connection, account)
        return connection.response

    async def _call(self, connection: Connection, account: TwilioAccount) -> None:
        """One stream from `connected` to its end. Raises NotAllowed for one that may not begin."""
        unread = 0
        try:
            async with asyncio.timeout(START_S):
                while True:
                    message = await _next(connection)
                    if message is None:
                        return
                    if isinstance(message, messages.Start):
                        break
                    unread += not isinstance(message, messages.Connected)
        except TimeoutError:
            raise NotAllowed(f"no `start` within {START_S:g} s") from None
        claims = await self._claim(message, account)
        line = TwilioLine(connection, message.stream_sid, account.lead_ms)
        leg = StreamLeg(
            _offer(message, claims, connection.peer, account),
            line,
            self._clock,
            stalled_s=self._settings.stalled_s,
            record_messages=self._settings.record_messages,
        )
        leg.round_trip_ms = lambda: connection.round_trip_ms
        line.told = leg
        for _ in range(unread):
            leg.misread()
        leg.noted("received", "start")
        self._accept(leg, claims)
        leg.connected()
        try:
            await self._listen(connection, message.stream_sid, line, leg)
        finally:
            by_peer = connection.by_peer or not connection.code
            ended = "the stream was closed" if connection.code == Close.DONE else "the connection was lost"
            cause = connection.cause or ended
            leg.gone(0, cause, by_peer=by_peer)

    async def _claim(self, start: messages.Start, account: TwilioAccount) -> Claims:
        if start.account_sid != account.account_sid:
            raise NotAllowed("the stream is of another account")
        claims = await self._gate.tokens.claim(start.parameters.get(TOKEN, ""), "twilio")
        if claims.trunk != account.name:
            raise NotAllowed("the token is of another account")
        return claims

    async def _listen(self, connection: Connection, stream_sid: str, line: TwilioLine, leg: StreamLeg) -> None:
        """Until `stop`, or until the connection ends."""
        while True:
            try:
                message = await _next(connection, strict=True)
            except BadPayload as problem:
                leg.misread()
                self._log.debug("a message that cannot be read", error=str(problem))
                continue
            match message:
                case messages.Media() if message.stream_sid == stream_sid:
                    if message.track == "inbound":
                        leg.heard(message.payload)
                case None:
                    return
                case messages.Mark() if message.stream_sid == stream_sid:
                    cleared = line.returned(message.name)
                    leg.noted("received", f"mark {message.name}{' (cleared)' if cleared else ''}")
                    leg.marked(message.name, cleared=cleared)
                case messages.Dtmf() if message.stream_sid == stream_sid:
                    leg.pressed(message.digit)
                case messages.Stop() if message.stream_sid == stream_sid:
                    leg.noted("received", "stop")
                    leg.gone(0, "Twilio ended the stream", by_peer=True)
                    return
                case messages.Unknown() | messages.Connected():
                    leg.misread(unknown=True)
                case _:  # of another stream, or a second `start`
                    leg.misread()


async def _next(connection: Connection, *, strict: bool = False) -> messages.Message | None:
    """The next message, None at the end. What cannot be read is Unknown, or, if strict, raises BadPayload."""
    text = await connection.receive()
    if text is None:
        return None
    try:
        return messages.parse(text if isinstance(text, str) else "")
    except BadPayload:
        if strict:
            raise
        return messages.Unknown("")


def _offer(start: messages.Start, claims: Claims, peer: str, account: TwilioAccount) -> StreamOffer:
    given = {name: value for name, value in start.parameters.items() if name != TOKEN and not name.startswith(OWN)}
    host = f"{account.name}.twilio"
    return StreamOffer(
        direction="inbound",
        from_uri=f"sip:{claims.from_user}@{host}",
        from_user=claims.from_user,
        to_uri=f"sip:{claims.to}@{host}",
        to_user=claims.to,
        source=peer,
        sip_call_id=start.call_sid,
        trunk=account.name,
        headers={name.lower(): value for name, value in given.items()},
        variables={**given, **claims.variables},
    )
