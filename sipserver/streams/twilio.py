"""Twilio's calls: where their streams connect, and what their webhooks tell about calls.

Owns who is let in (a stream shows the one-time token of our TwiML), which calls of Twilio are legs of ours, and what a
webhook means for each. Refuses to know the messages' letters (`twilio_messages`), time (`leg`) and signatures
(`webhooks.twilio`). Satisfies `webhooks.twilio.Calls`.

A call is answered when its stream begins. The stream is the last verb of our TwiML, so that closing it ends the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from aiohttp import web

from sipserver.audio.clock import LegClock
from sipserver.errors import BadPayload, CapacityError, NotAllowed, NotFound
from sipserver.gate.close_codes import Close
from sipserver.gate.connection import Connection
from sipserver.gate.gate import Gate
from sipserver.gate.tokens import Claims
from sipserver.log import logger
from sipserver.streams import twilio_messages as messages
from sipserver.streams import twiml
from sipserver.streams.carrier_line import ring
from sipserver.streams.contract import StreamOffer
from sipserver.streams.leg import Accept, StreamLeg
from sipserver.streams.settings import StreamSettings, TwilioAccount
from sipserver.streams.twilio_line import TwilioLine
from sipserver.streams.twilio_rest import TwilioRest

START_S = 10.0
"""How long a stream may take to say `start`."""
HELPFUL = ("CallerName", "ForwardedFrom", "FromCity", "FromCountry")
"""What Twilio knows of a caller that dialplans may want: further parameters of the stream."""


class TwilioServer:
    """`routes`; `close` at the end. Loop thread. accept: takes a leg when its stream begins.

    room: whether one more call may come now. auth_tokens: by account; one without cannot transfer or place calls.
    """

    def __init__(
        self,
        settings: StreamSettings,
        gate: Gate,
        clock: LegClock,
        accept: Accept,
        room: Callable[[], bool],
        auth_tokens: Mapping[str, str],
    ) -> None:
        self.gate, self._settings, self._clock, self._accept, self._room = gate, settings, clock, accept, room
        self.accounts = {account.name: account for account in settings.twilio}
        self.rests = {
            name: TwilioRest(account, auth_tokens[name])
            for name, account in self.accounts.items()
            if auth_tokens.get(name)
        }
        self._lines: dict[str, TwilioLine] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = logger("streams")

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/ws/twilio/{account}", self._serve)] if self.accounts else []

    async def close(self) -> None:
        """End what still runs; the calls are over."""
        for line in tuple(self._lines.values()):
            await line.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *(rest.close() for rest in self.rests.values()), return_exceptions=True)

    # --- what the webhooks ask and tell (webhooks.twilio.Calls) -------------------------------------------------------

    def voice(self, account: str, base_url: str, fields: Mapping[str, str]) -> str:
        """TwiML for a call that has come. Its token is good for one stream, however often Twilio asks."""
        claims = Claims(
            "twilio",
            to=fields.get("To", ""),
            from_user=fields.get("From", ""),
            trunk=account,
            serial=fields.get("CallSid", ""),
        )
        more = {name: fields[name] for name in HELPFUL if fields.get(name)}
        return self.connecting(self.accounts[account], base_url, claims, more=more)

    def status(self, account: str, about: Mapping[str, str], fields: Mapping[str, str]) -> None:
        """Something happened to a call that we placed (`call`), or to whom we had Twilio connect a caller (`refer`)."""
        status = fields.get("CallStatus", "")
        line = self._lines.get(about.get("refer", "") or about.get("call", ""))
        if line is None or line.account.name != account or line.leg is None:
            return
        leg = line.leg
        if about.get("refer"):
            leg.noted("received", f"transfer {status}")
            if status == "in-progress":
                line.told(twiml.FINAL["answered"])
            return
        leg.noted("received", f"status {status}")
        if not line.call_id:
            self.known(line, fields.get("CallSid", ""))
        if status == "ringing":
            leg.progress(180)
        elif (code := twiml.FINAL.get(status, 0)) >= 300:
            leg.gone(code, f"Twilio says {status}", by_peer=True)
        elif status == "completed":
            line.lost("the call is completed")

    def dialled(self, account: str, base_url: str, about: Mapping[str, str], fields: Mapping[str, str]) -> str:
        """Whom Twilio connected a caller to is gone, or has never come: what is done next."""
        status, line = fields.get("DialCallStatus", ""), self._lines.get(about.get("refer", ""))
        if line is None or line.account.name != account:
            return twiml.HANG_UP
        if line.leg is not None:
            line.leg.noted("received", f"transfer {status}")
        code = twiml.FINAL.get(status, 503)
        if fields.get("CallStatus") == "completed" and code >= 300:
            line.lost("the caller hung up")
            return twiml.HANG_UP
        line.told(code)
        if code < 300 or line.over or not line.away:
            return twiml.HANG_UP
        line.base_url = base_url
        return self.way_back(line)

    # --- tokens and TwiML ---------------------------------------------------------------------------------------------

    def connecting(
        self,
        account: TwilioAccount,
        base_url: str,
        claims: Claims,
        lives_s: float | None = None,
        more: Mapping[str, str] | None = None,
    ) -> str:
        """TwiML that connects a call to us. lives_s: how long it is good for; None: as all tokens."""
        secure, _, host = base_url.partition("://")
        url = f"{'wss' if secure == 'https' else 'ws'}://{host}/ws/twilio/{account.name}"
        return twiml.connect(url, {twiml.TOKEN: self.gate.tokens.issue(claims, lives_s), **(more or {})})

    def way_back(self, line: TwilioLine) -> str:
        """TwiML that brings a call back to its leg."""
        line.ways_back += 1
        claims = Claims("twilio", trunk=line.account.name, serial=f"{line.key}/{line.ways_back}")
        return self.connecting(line.account, line.base_url, claims)

    def line_for(self, account: TwilioAccount, key: str, call_id: str, base_url: str, *, shown: str) -> TwilioLine:
        """A new call. shown: the number that is shown to whom the caller is transferred."""
        rest = self.rests.get(account.name)
        return TwilioLine(account, key, call_id, rest, base_url=base_url, shown=shown, way_back=self.way_back)

    def leg_for(self, line: TwilioLine, offer: StreamOffer) -> StreamLeg:
        """The leg of a call, which is known from here on until the leg is gone."""
        settings = self._settings
        leg = StreamLeg(
            offer, line, self._clock, stalled_s=settings.stalled_s, record_messages=settings.record_messages
        )
        line.leg = leg
        self._lines[line.key] = line
        self._start(self._until_gone(line, leg), "twilio call")
        return leg

    def known(self, line: TwilioLine, call_sid: str) -> None:
        line.call_id = call_sid

    def give_up_after(self, leg: StreamLeg, timeout_s: float) -> None:
        """End a call that we placed unless it is answered in time."""
        self._start(ring(leg, timeout_s), "twilio ringing")

    async def _until_gone(self, line: TwilioLine, leg: StreamLeg) -> None:
        try:
            await leg.ended()
        finally:
            await line.close()
            self._lines.pop(line.key, None)

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- streams ------------------------------------------------------------------------------------------------------

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        account = self.accounts.get(request.match_info["account"])
        if account is None:
            raise NotFound("no such account")
        if not self._room():
            raise CapacityError(f"{self._settings.calls} calls are there already")
        async with self.gate.open(request, kind="twilio", takes="text") as connection:
            await self._call(connection, account, self.gate.public_url(request))
        return connection.response

    async def _call(self, connection: Connection, account: TwilioAccount, base_url: str) -> None:
        """One stream from `connected` to its end. Raises NotAllowed for one that may not begin."""
        start, unread = await _first(connection)
        if start is None:
            return
        if start.account_sid != account.account_sid:
            raise NotAllowed("the stream is of another account")
        claims = await self.gate.tokens.claim(start.parameters.get(twiml.TOKEN, ""), "twilio")
        if claims.trunk != account.name:
            raise NotAllowed("the token is of another account")
        key, _, back = claims.serial.partition("/")
        line = self._lines.get(key)
        if back and line is None:
            raise NotAllowed("the call of this token is over")
        fresh = line is None
        if line is None:
            line = self.line_for(account, key, start.call_sid, base_url, shown=account.from_ or claims.to)
            self.leg_for(line, _offer(start, claims, connection.peer, account))
        leg = line.leg
        assert leg is not None
        leg.round_trip_ms = lambda: connection.round_trip_ms
        for _ in range(unread):
            leg.misread()
        leg.noted("received", "start")
        line.begun(connection, start.stream_sid)
        if fresh:
            self._accept(leg, claims)
        leg.connected()
        stopped = False
        try:
            stopped = await self._listen(connection, start.stream_sid, line, leg)
        finally:
            if line.disconnected(connection):
                lost = "the stream was closed" if connection.code == Close.DONE else "the connection was lost"
                cause = "Twilio ended the stream" if stopped else connection.cause or lost
                leg.gone(0, cause, by_peer=stopped or connection.by_peer or not connection.code)
            elif line.away:
                leg.dropped(connection.code, "the caller is connected to somebody else")

    async def _listen(self, connection: Connection, stream_sid: str, line: TwilioLine, leg: StreamLeg) -> bool:
        """Until `stop` (True), or until the connection ends."""
        async for text in connection:
            try:
                message = messages.parse(text if isinstance(text, str) else "")
            except BadPayload as problem:
                leg.misread()
                self._log.debug("a message that cannot be read", error=str(problem))
                continue
            match message:
                case messages.Media() if message.stream_sid == stream_sid:
                    if message.track == "inbound":
                        leg.heard(message.payload)
                case messages.Mark() if message.stream_sid == stream_sid:
                    cleared = line.returned(message.name)
                    leg.noted("received", f"mark {message.name}{' (cleared)' if cleared else ''}")
                    leg.marked(message.name, cleared=cleared)
                case messages.Dtmf() if message.stream_sid == stream_sid:
                    leg.pressed(message.digit)
                case messages.Stop() if message.stream_sid == stream_sid:
                    leg.noted("received", "stop")
                    return True
                case messages.Unknown() | messages.Connected():
                    leg.misread(unknown=True)
                case _:  # of another stream, or a second `start`
                    leg.misread()
        return False


async def _first(connection: Connection) -> tuple[messages.Start | None, int]:
    """The message that begins a stream, None at the end; and how many came before it that have no place there."""
    unread = 0
    try:
        async with asyncio.timeout(START_S):
            async for text in connection:
                try:
                    message = messages.parse(text if isinstance(text, str) else "")
                except BadPayload:
                    unread += 1
                    continue
                if isinstance(message, messages.Start):
                    return message, unread
                unread += not isinstance(message, messages.Connected)
    except TimeoutError:
        raise NotAllowed(f"no `start` within {START_S:g} s") from None
    return None, unread


def _offer(start: messages.Start, claims: Claims, peer: str, account: TwilioAccount) -> StreamOffer:
    given = {name: value for name, value in start.parameters.items() if name != twiml.TOKEN}
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
