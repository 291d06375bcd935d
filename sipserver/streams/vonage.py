"""Vonage's calls: where their WebSockets connect, and what their webhooks tell about calls.

Owns who is let in (a WebSocket shows the one-time token of our NCCO), which calls of Vonage are legs of ours, and what
an event means for each. Refuses to know the messages' letters (`vonage_messages`), time (`leg`) and signatures
(`webhooks.vonage`). Satisfies `webhooks.vonage.Calls`.

A call is answered when its WebSocket begins. The WebSocket is the last action of our NCCO, so that closing it ends the
call; when no event says so within HANG_UP_S, we ask the REST API.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from aiohttp import web

from sipserver.audio.clock import LegClock
from sipserver.errors import BadPayload, CapacityError, CarrierError, NotAllowed, NotFound
from sipserver.gate.connection import Connection
from sipserver.gate.gate import Gate
from sipserver.gate.tokens import Claims
from sipserver.log import logger
from sipserver.streams import vonage_messages as messages
from sipserver.streams.contract import StreamOffer
from sipserver.streams.leg import Accept, StreamLeg
from sipserver.streams.settings import StreamSettings, VonageAccount
from sipserver.streams.vonage_line import VonageLine
from sipserver.streams.vonage_messages import Ncco
from sipserver.streams.vonage_rest import VonageRest

START_S = 10.0
"""How long a WebSocket may take to say `websocket:connected`."""
HANG_UP_S = 5.0
MOST_ENDED = 1000
"""Calls that we ended and whose `completed` we wait for; beyond it the oldest are not watched any more."""


class VonageServer:
    """`routes`; `close` at the end. Loop thread. accept: takes a leg when its WebSocket begins.

    room: whether one more call may come now. Raises SettingsError for a private key that cannot be read.
    """

    def __init__(
        self, settings: StreamSettings, gate: Gate, clock: LegClock, accept: Accept, room: Callable[[], bool]
    ) -> None:
        self.gate, self._settings, self._clock, self._accept, self._room = gate, settings, clock, accept, room
        self.accounts = {account.name: account for account in settings.vonage}
        self.rests = {name: VonageRest(account) for name, account in self.accounts.items() if account.private_key}
        self._lines: dict[str, VonageLine] = {}
        self._keys: dict[str, str] = {}
        self._ended: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = logger("streams")

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/ws/vonage/{account}", self._serve)] if self.accounts else []

    async def close(self) -> None:
        """End what still runs; the calls are over."""
        for timer in self._ended.values():
            timer.cancel()
        for line in tuple(self._lines.values()):
            await line.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *(rest.close() for rest in self.rests.values()), return_exceptions=True)

    # --- what the webhooks ask and tell (webhooks.vonage.Calls) -------------------------------------------------------

    def answer(self, account: str, base_url: str, fields: Mapping[str, str]) -> Ncco:
        """The NCCO for a call that has come. Its token is good for one WebSocket, however often Vonage asks."""
        claims = Claims(
            "vonage",
            to=_plus(fields.get("to", "")),
            from_user=_plus(fields.get("from", "") or fields.get("from_user", "")),
            trunk=account,
            serial=fields.get("uuid", ""),
        )
        return self.connecting(self.accounts[account], base_url, claims)

    def event(self, account: str, base_url: str, about: Mapping[str, str], fields: Mapping[str, str]) -> Ncco | None:
        """Something happened to a call. about: the query of the URL that we gave Vonage. What is answered is done next
        if the event is about a `connect` that failed; None: nothing.
        """
        status, uuid = fields.get("status", ""), fields.get("uuid", "")
        if refers := about.get("refer"):
            return self._referred(refers, account, base_url, status)
        if status == "completed" and (timer := self._ended.pop(uuid, None)) is not None:
            timer.cancel()
        line = self._lines.get(about.get("call", "") or self._keys.get(uuid, "") or uuid)
        if line is None or line.account.name != account:
            return None
        if not line.call_id and uuid:
            self.known(line, uuid)
        self._happened(line, status)
        return None

    def _happened(self, line: VonageLine, status: str) -> None:
        leg = line.leg
        if leg is None:
            return
        leg.noted("received", f"event {status}")
        if leg.offer.direction == "outbound":
            if status == "ringing":
                leg.progress(180)
                return
            code = messages.FINAL.get(status, 0)
            if code >= 300:
                leg.gone(code, f"Vonage says {status}", by_peer=True)
        if status == "completed":
            line.lost("the call is completed")

    def _referred(self, key: str, account: str, base_url: str, status: str) -> Ncco | None:
        line = self._lines.get(key)
        code = messages.reached(status)
        if line is None or line.account.name != account or not code or line.handed_over:
            return None
        if line.leg is not None:
            line.leg.noted("received", f"transfer {status}")
        line.told(code)
        if code == messages.FINAL["answered"] or line.over or not line.away:
            return None
        line.base_url = base_url
        return self.way_back(line)

    # --- tokens and actions -------------------------------------------------------------------------------------------

    def connecting(self, account: VonageAccount, base_url: str, claims: Claims, lives_s: float | None = None) -> Ncco:
        """Actions that connect a call to us. lives_s: how long they are good for; None: as all tokens."""
        secure, _, host = base_url.partition("://")
        url = f"{'wss' if secure == 'https' else 'ws'}://{host}/ws/vonage/{account.name}"
        return messages.websocket(url, account.rate_hz, self.gate.tokens.issue(claims, lives_s))

    def way_back(self, line: VonageLine) -> Ncco:
        """Actions that bring a call back to its leg."""
        line.ways_back += 1
        claims = Claims("vonage", trunk=line.account.name, serial=f"{line.key}/{line.ways_back}")
        return self.connecting(line.account, line.base_url, claims)

    def line_for(
        self, account: VonageAccount, key: str, uuid: str, base_url: str, *, host: str, shown: str
    ) -> VonageLine:
        """A new call; `keep` when it has its leg."""
        return VonageLine(
            account,
            key,
            uuid,
            self.rests.get(account.name),
            base_url=base_url,
            host=host,
            shown=messages.digits_of(account.from_) or messages.digits_of(shown),
            way_back=self.way_back,
        )

    def leg_for(self, line: VonageLine, offer: StreamOffer) -> StreamLeg:
        """The leg of a call, which is known from here on until the leg is gone."""
        settings = self._settings
        leg = StreamLeg(
            offer, line, self._clock, stalled_s=settings.stalled_s, record_messages=settings.record_messages
        )
        line.leg = leg
        self._lines[line.key] = line
        if line.call_id:
            self.known(line, line.call_id)
        self.start(self._until_gone(line, leg), "vonage call")
        return leg

    def known(self, line: VonageLine, uuid: str) -> None:
        line.call_id = uuid
        self._keys[uuid] = line.key

    def start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """A task that is ours to end."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _until_gone(self, line: VonageLine, leg: StreamLeg) -> None:
        try:
            gone = await leg.ended()
        finally:
            await line.close()
            self._lines.pop(line.key, None)
            self._keys.pop(line.call_id, None)
        if not gone.by_peer and not line.handed_over and line.call_id and line.account.name in self.rests:
            self._see_out(line)

    def _see_out(self, line: VonageLine) -> None:
        """We ended the call: unless Vonage says so soon, ask for it."""
        while len(self._ended) >= MOST_ENDED:
            self._ended.pop(next(iter(self._ended))).cancel()
        loop = asyncio.get_running_loop()
        self._ended[line.call_id] = loop.call_later(HANG_UP_S, self._still_there, line)

    def _still_there(self, line: VonageLine) -> None:
        if self._ended.pop(line.call_id, None) is not None:
            self.start(self._hang_up(line), "vonage hang-up")

    async def _hang_up(self, line: VonageLine) -> None:
        try:
            await self.rests[line.account.name].hang_up(line.call_id)
        except CarrierError as problem:
            self._log.info("a call that is over was not hung up", account=line.account.name, error=str(problem))

    # --- WebSockets ---------------------------------------------------------------------------------------------------

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        account = self.accounts.get(request.match_info["account"])
        if account is None:
            raise NotFound("no such account")
        if not self._room():
            raise CapacityError(f"{self._settings.calls} calls are there already")
        async with self.gate.open(request, kind="vonage") as connection:
            await self._call(connection, account, self.gate.public_url(request))
        return connection.response

    async def _call(self, connection: Connection, account: VonageAccount, base_url: str) -> None:
        """One WebSocket from `websocket:connected` to its end. Raises NotAllowed for one that may not begin."""
        first, unread = await _first(connection)
        if first is None:
            return
        if first.rate_hz != account.rate_hz:
            raise NotAllowed(f"the sound has {first.rate_hz} Hz; {account.rate_hz} were asked for")
        claims = await self.gate.tokens.claim(first.headers.get(messages.TOKEN, ""), "vonage")
        if claims.trunk != account.name:
            raise NotAllowed("the token is of another account")
        key, _, back = claims.serial.partition("/")
        line = self._lines.get(key)
        if back and line is None:
            raise NotAllowed("the call of this token is over")
        fresh = line is None
        if line is None:
            host = f"{account.name}.vonage"
            line = self.line_for(account, key, key, base_url, host=host, shown=claims.to)
            self.leg_for(line, _offer(first, claims, connection.peer, host))
        leg = line.leg
        assert leg is not None
        leg.round_trip_ms = lambda: connection.round_trip_ms
        for _ in range(unread):
            leg.misread()
        leg.noted("received", "websocket:connected")
        line.connected(connection)
        if fresh:
            self._accept(leg, claims)
        leg.connected()
        try:
            await self._listen(connection, line, leg)
        finally:
            if line.disconnected(connection):
                leg.gone(0, connection.cause or "the WebSocket was closed", by_peer=not line.over)
            elif line.away:
                leg.dropped(connection.code, "the caller is connected to somebody else")

    async def _listen(self, connection: Connection, line: VonageLine, leg: StreamLeg) -> None:
        """Until the connection ends."""
        frame = messages.frame_bytes(line.account.rate_hz)
        async for message in connection:
            if isinstance(message, bytes):
                if len(message) != frame:
                    leg.misread()
                if message and len(message) % 2 == 0:
                    leg.heard(message)
                continue
            try:
                self._told(messages.parse(message), line, leg)
            except BadPayload as problem:
                leg.misread()
                self._log.debug("a message that cannot be read", error=str(problem))

    def _told(self, message: messages.Message, line: VonageLine, leg: StreamLeg) -> None:
        match message:
            case messages.Notified(name):
                cleared = line.returned(name)
                leg.noted("received", f"notify {name}{' (cleared)' if cleared else ''}")
                leg.marked(name, cleared=cleared)
            case messages.Cleared():
                leg.noted("received", "websocket:cleared")
                for name in line.emptied():
                    leg.marked(name, cleared=True)
            case messages.Dtmf(digit):
                leg.pressed(digit)
            case messages.Unknown():
                leg.misread(unknown=True)
            case messages.Connected():  # a second one
                leg.misread()


async def _first(connection: Connection) -> tuple[messages.Connected | None, int]:
    """The message that begins it, None at the end; and how many came before it that were none."""
    unread: deque[None] = deque()
    try:
        async with asyncio.timeout(START_S):
            async for message in connection:
                try:
                    read = messages.parse(message) if isinstance(message, str) else None
                except BadPayload:
                    read = None
                if isinstance(read, messages.Connected):
                    return read, len(unread)
                unread.append(None)
    except TimeoutError:
        raise NotAllowed(f"no `websocket:connected` within {START_S:g} s") from None
    return None, 0


def _plus(number: str) -> str:
    """Vonage writes numbers without `+`; dialplans have E.164. What is no number stays as it is."""
    return f"+{number}" if number and messages.digits_of(number) == number else number


def _offer(first: messages.Connected, claims: Claims, peer: str, host: str) -> StreamOffer:
    given = {name: value for name, value in first.headers.items() if name != messages.TOKEN}
    return StreamOffer(
        direction="inbound",
        from_uri=f"sip:{claims.from_user}@{host}",
        from_user=claims.from_user,
        to_uri=f"sip:{claims.to}@{host}",
        to_user=claims.to,
        source=peer,
        sip_call_id=claims.serial,
        trunk=claims.trunk,
        headers={name.lower(): value for name, value in given.items()},
        variables={**given, **claims.variables},
    )
