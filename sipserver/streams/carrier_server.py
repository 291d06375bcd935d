"""Where the WebSockets of one kind of carrier come in, and which of its calls are legs of ours.

Owns who is let in by which token, the calls that live, and the tasks that they need. Refuses to know what a carrier's
messages, webhooks and requests say: `twilio` and `vonage` do.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from aiohttp import web

from sipserver.errors import BadPayload, CapacityError, CarrierError, NotAllowed, NotFound
from sipserver.events import LegDisconnected
from sipserver.gate.connection import Connection, Takes
from sipserver.gate.tokens import Claims, Use
from sipserver.log import logger
from sipserver.streams.carrier_line import Account, CarrierLine, ring
from sipserver.streams.contract import StreamOffer
from sipserver.streams.doorway import Doorway
from sipserver.streams.leg import StreamLeg

START_S = 10.0
"""How long a WebSocket may take for the message that begins it."""
TOKEN_OVER_S = 60.0
"""The token of a call that we place outlives its ringing by this."""

Begins = TypeVar("Begins")


class Rest(Protocol):
    """What every carrier's REST API can do. Raises CarrierError."""

    async def hang_up(self, call_id: str) -> None: ...

    async def close(self) -> None: ...


AnyAccount = TypeVar("AnyAccount", bound=Account)
AnyLine = TypeVar("AnyLine", bound=CarrierLine)
AnyRest = TypeVar("AnyRest", bound=Rest)


class CarrierServer(ABC, Generic[AnyAccount, AnyLine, AnyRest]):
    """`routes`; `close` at the end. Loop thread. rests: by account; one without cannot transfer or place calls."""

    use: ClassVar[Use]
    """Of the carrier's tokens; its WebSockets come to /ws/USE/ACCOUNT."""
    takes: ClassVar[Takes] = "any"

    def __init__(self, doorway: Doorway, accounts: Mapping[str, AnyAccount], rests: Mapping[str, AnyRest]) -> None:
        self.gate, self.home, self._doorway = doorway.gate, doorway.home, doorway
        self.accounts, self.rests = accounts, rests
        self._lines: dict[str, AnyLine] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = logger("streams")

    def routes(self) -> list[web.RouteDef]:
        path = f"/ws/{self.use}/{{account}}"
        return [web.get(path, self._serve), web.get(path + "/{home}", self._serve)] if self.accounts else []

    async def close(self) -> None:
        """End what still runs; the calls are over."""
        for line in tuple(self._lines.values()):
            await line.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *(rest.close() for rest in self.rests.values()), return_exceptions=True)

    # --- what the carriers differ in ----------------------------------------------------------------------------------

    @abstractmethod
    async def _call(self, connection: Connection, account: AnyAccount, base_url: str) -> None:
        """One WebSocket from its beginning to its end. Raises NotAllowed for one that may not begin."""

    @abstractmethod
    async def _listen(self, connection: Connection, line: AnyLine, leg: StreamLeg) -> bool:
        """Until the carrier says that its WebSocket is over (True), or until the connection ends."""

    @abstractmethod
    def _end_of(self, line: AnyLine, connection: Connection, *, stopped: bool) -> tuple[str, bool]:
        """Why a call ended with its WebSocket, and whether that was the carrier's doing."""

    # --- calls --------------------------------------------------------------------------------------------------------

    def check_room(self) -> None:
        """Raises CapacityError when no new call may come now: the server starts, drains, or is full."""
        if not self._doorway.room():
            raise CapacityError("no room for one more call")

    def way_back_claims(self, line: AnyLine) -> Claims:
        """What the token says that brings a call back to its leg."""
        line.ways_back += 1
        return Claims(self.use, trunk=line.account.name, serial=f"{line.key}/{line.ways_back}")

    def socket_url(self, account: AnyAccount, base_url: str, claims: Claims) -> str:
        """Where a carrier that reaches us at base_url connects: to any process with a call that is new."""
        secure, _, host = base_url.partition("://")
        home = f"/{self.home}" if self.home and "/" in claims.serial else ""
        return f"{'wss' if secure == 'https' else 'ws'}://{host}/ws/{self.use}/{account.name}{home}"

    def leg_for(self, line: AnyLine, offer: StreamOffer) -> StreamLeg:
        """The leg of a call, which is known from here on until the leg is gone."""
        settings = self._doorway.settings
        leg = StreamLeg(
            offer, line, self._doorway.clock, stalled_s=settings.stalled_s, record_messages=settings.record_messages
        )
        line.leg = leg
        self._lines[line.key] = line
        if line.call_id:
            self.known(line, line.call_id)
        self.start(self._until_gone(line, leg), f"{self.use} call")
        return leg

    def known(self, line: AnyLine, call_id: str) -> None:
        """The carrier has said how it calls the call."""
        line.call_id = call_id

    def start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """A task that is ours to end."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def placed(
        self, line: AnyLine, leg: StreamLeg, order: Coroutine[Any, Any, str], timeout_s: float
    ) -> StreamLeg:
        """The leg of a call that is being ordered, when the carrier has taken the order and said how it calls the call.
        Without an answer the leg ends with 408 after timeout_s. Raises CarrierError when the order is refused. Not to
        be cancelled: `calls.attempts` awaits it and hangs up (as with every order).
        """
        try:
            call_id = await order
        except BaseException as problem:
            status = problem.status if isinstance(problem, CarrierError) else 0
            leg.gone(status, f"{self.use.title()} did not take the call", by_peer=False)
            raise
        if not leg.is_gone:  # its events may be faster than the answer to the order
            self.known(line, call_id)
            self.start(ring(leg, timeout_s), f"{self.use} ringing")
        return leg

    def _left(self, line: AnyLine, gone: LegDisconnected) -> None:
        """A call is over, and not known any more."""

    async def _until_gone(self, line: AnyLine, leg: StreamLeg) -> None:
        try:
            gone = await leg.ended()
        finally:
            await line.close()
            self._lines.pop(line.key, None)
        self._left(line, gone)

    # --- WebSockets ---------------------------------------------------------------------------------------------------

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        account = self.accounts.get(request.match_info["account"])
        if account is None:
            raise NotFound("no such account")
        async with self.gate.open(request, kind=self.use, takes=self.takes) as connection:
            await self._call(connection, account, self.gate.public_url(request))
        return connection.response

    async def _claimed(self, token: str, account: AnyAccount) -> tuple[Claims, AnyLine | None]:
        """What a token says, and the call that it is for; None: a new one. The serial of a token is the carrier's name
        of a new call, or the key of a call of ours, `/` and a number. Raises NotAllowed for a token that is not good
        here, and for one of a call that is over; CapacityError when there is no room for a new call.
        """
        claims = await self.gate.tokens.claim(token, self.use)
        if claims.trunk != account.name:
            raise NotAllowed("the token is of another account")
        key, _, back = claims.serial.partition("/")
        line = self._lines.get(key) if back else None
        if back and line is None:
            raise NotAllowed("the call of this token is over")
        if line is None:
            self.check_room()
        return claims, line

    async def _carry(
        self, connection: Connection, line: AnyLine, claims: Claims | None, *, began: str, unread: int
    ) -> None:
        """The WebSocket of a call, until it ends. claims: of a call that is new; None: it comes back, or was ours.

        began: the message that began it; unread: so many came before it that could not be read.
        """
        leg = line.leg
        assert leg is not None
        leg.round_trip_ms = lambda: connection.round_trip_ms
        for _ in range(unread):
            leg.misread()
        leg.noted("received", began)
        line.connected(connection)
        if claims is not None:
            self._doorway.accept(leg, claims)
        leg.connected()
        stopped = False
        try:
            stopped = await self._listen(connection, line, leg)
        finally:
            if line.disconnected(connection):
                cause, by_peer = self._end_of(line, connection, stopped=stopped)
                leg.gone(0, cause, by_peer=by_peer)
            elif line.away:
                leg.dropped(connection.code, "the caller is connected to somebody else")


async def first_of(
    connection: Connection,
    parse: Callable[[str], object],
    wanted: type[Begins],
    harmless: type | tuple[type, ...] = (),
) -> tuple[Begins | None, int]:
    """The message that begins a WebSocket, None at the end; and how many came before it that have no place there.

    Raises NotAllowed when it does not come in time.
    """
    unread = 0
    try:
        async with asyncio.timeout(START_S):
            async for text in connection:
                try:
                    message = parse(text) if isinstance(text, str) else None
                except BadPayload:
                    unread += 1
                    continue
                if isinstance(message, wanted):
                    return message, unread
                unread += not isinstance(message, harmless)
    except TimeoutError:
        raise NotAllowed(f"it did not begin within {START_S:g} s") from None
    return None, unread


def offer_of(claims: Claims, given: Mapping[str, str], peer: str, host: str) -> StreamOffer:
    """The facts of a call that has come, whose token has the carrier's own name of it. given: what it brought along."""
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
