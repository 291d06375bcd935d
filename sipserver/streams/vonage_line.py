"""One call of Vonage as a leg drives it: over one WebSocket after the other, and over the REST API.

Owns what a call at Vonage is in between: with us, away at somebody else's, on its way back. Satisfies `contract.Line`.
Refuses to know who is let in (`vonage`) and what a leg does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from sipserver.errors import CallerError, CarrierError
from sipserver.gate.close_codes import Close
from sipserver.gate.connection import Connection
from sipserver.streams import vonage_messages as messages
from sipserver.streams.contract import WireFormat
from sipserver.streams.leg import StreamLeg
from sipserver.streams.settings import VonageAccount
from sipserver.streams.vonage_messages import Ncco

BACK_S = 10.0
"""How long a caller may take to come back to us from a transfer that failed."""
_WIRES: dict[int, WireFormat] = {8000: "l16_8", 16_000: "l16_16", 24_000: "l16_24"}
_KEYS = frozenset("0123456789*#")


class Rest(Protocol):
    """What a call needs of Vonage's REST API, as `vonage_rest.VonageRest` gives it."""

    async def hang_up(self, uuid: str) -> None: ...

    async def connect(self, uuid: str, actions: Ncco) -> None: ...

    async def press(self, uuid: str, digits: str) -> None: ...


class VonageLine:
    """Satisfies `contract.Line`. Loop thread.

    key: how we know the call; in its tokens. uuid: how Vonage knows it; empty until that is told. rest: None: the
    account has no private key, so that nothing but the WebSocket is ours. way_back: the actions that bring the call to
    us again. host: of the addresses of the caller. over: the line has done with the call.
    """

    marks = True

    def __init__(
        self,
        account: VonageAccount,
        key: str,
        uuid: str,
        rest: Rest | None,
        *,
        base_url: str,
        host: str,
        shown: str,
        way_back: Callable[[VonageLine], Ncco],
    ) -> None:
        self.account, self.key, self.uuid, self.base_url = account, key, uuid, base_url
        self.wire: WireFormat = _WIRES[account.rate_hz]
        self.lead_ms = account.lead_ms
        self.leg: StreamLeg | None = None
        self.over = self.away = self.handed_over = False
        self.ways_back = 0
        self._rest, self._host, self._shown, self._way_back = rest, host, shown, way_back
        self._frame = messages.frame_bytes(account.rate_hz)
        self._rest_of_frame = bytearray()
        self._connection: Connection | None = None
        self._waiting: dict[str, None] = {}
        self._cleared: set[str] = set()
        self._outcome: asyncio.Future[int] | None = None
        self._came_back = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    # --- contract.Line ------------------------------------------------------------------------------------------------

    @property
    def can_refer(self) -> bool:
        return self._rest is not None

    def play(self, payload: bytes) -> None:
        """In messages of exactly 20 ms; nothing while the call is not with us. Dropped, and counted by the connection,
        while Vonage does not take what we send.
        """
        connection = self._connection
        if connection is None:
            return
        if len(payload) == self._frame and not self._rest_of_frame:
            connection.send(payload, droppable=True)
            return
        rest = self._rest_of_frame
        rest += payload
        while len(rest) >= self._frame:
            connection.send(bytes(rest[: self._frame]), droppable=True)
            del rest[: self._frame]

    def mark(self, name: str) -> None:
        self._waiting[name] = None
        self._say(f"notify {name}", messages.notify(name))

    def clear(self) -> None:
        """What is asked for now and not told yet will not have been heard."""
        self._rest_of_frame.clear()
        self._cleared.update(self._waiting)
        self._waiting.clear()
        self._say("clear", messages.CLEAR)

    async def press(self, digits: str, duration_ms: int) -> bool:
        if self._rest is None or not self.uuid or self.away or not _KEYS.issuperset(digits):
            return False
        await self._rest.press(self.uuid, digits)
        return True

    async def refer(self, to_uri: str) -> int:
        """Vonage connects the caller to somebody else, and tells what became of it. When nobody answers, the caller
        comes back to the same leg before this returns. Cancelled, it has the caller come back, too.
        """
        rest = self._rest
        if rest is None or not self.uuid:
            raise CarrierError("the call cannot be transferred: the account has no private key", 501)
        if self.away:
            raise CarrierError("the call is being transferred already", 491)
        try:
            endpoint = messages.endpoint_of(to_uri, self._host)
        except ValueError as problem:
            raise CallerError(str(problem)) from problem
        event_url = f"{self.base_url}/webhooks/vonage/{self.account.name}/event?refer={self.key}"
        self.away = True
        self._came_back.clear()
        outcome: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._outcome = outcome
        try:
            await rest.connect(self.uuid, messages.away(endpoint, self._shown, event_url))
            status = await outcome
        except asyncio.CancelledError:
            self._fetch(rest)
            raise
        except CarrierError:
            self.away = False
            if self._connection is None:
                self.lost("the call was lost in a transfer")
            raise
        if self.handed_over:
            return status
        try:
            async with asyncio.timeout(BACK_S):
                await self._came_back.wait()
        except TimeoutError:
            self.lost("the caller did not come back from a transfer")
            raise CarrierError("the caller did not come back", 408) from None
        return status

    async def hang_up(self, code: int, reason: str) -> None:
        """Closing the WebSocket ends the call, after which no action follows; whoever has been handed over goes on."""
        self.over = True
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close(Close.DONE, reason)
        elif not self.handed_over and self._rest is not None and self.uuid:
            await self._rest.hang_up(self.uuid)

    # --- what Vonage tells --------------------------------------------------------------------------------------------

    def connected(self, connection: Connection) -> None:
        """A WebSocket for this call: the first one, or one after a transfer that failed."""
        earlier, self._connection = self._connection, connection
        if earlier is not None:
            earlier.close_soon(Close.REPLACED)
        self._rest_of_frame.clear()
        self.away = False
        self._came_back.set()

    def disconnected(self, connection: Connection) -> bool:
        """A WebSocket is over. True: so is the call; False: it is away, or has another one."""
        if self._connection is not connection:
            return not self.away and self._connection is None
        self._connection = None
        return not self.away

    def told(self, status: int) -> None:
        """What became of a transfer, as a SIP status."""
        if self._outcome is not None and not self._outcome.done():
            self.handed_over = status == messages.FINAL["answered"]
            self._outcome.set_result(status)

    def lost(self, cause: str) -> None:
        """The call is over at Vonage."""
        self.over = True
        if self._outcome is not None and not self._outcome.done():
            self._outcome.set_exception(CarrierError(cause, 487))
            self._outcome.exception()  # it may be that nobody waits any more
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close_soon(Close.DONE)
        if self.leg is not None:
            self.leg.gone(0, cause, by_peer=True)

    def notified(self, name: str) -> bool:
        """A `notify` was answered. True: its sound was thrown away."""
        self._waiting.pop(name, None)
        if name in self._cleared:
            self._cleared.discard(name)
            return True
        return False

    def emptied(self) -> tuple[str, ...]:
        """Our `clear` was done: the names that were asked for before it. They may be told all the same, or not."""
        names, self._cleared = tuple(self._cleared), set()
        return names

    # --- inside -------------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """End what still runs for this call."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _fetch(self, rest: Rest) -> None:
        """Nobody waits for the outcome of a transfer any more: have the caller back."""
        self.handed_over = False
        task = asyncio.create_task(self._bring_back(rest), name="bring a caller back")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _bring_back(self, rest: Rest) -> None:
        if self.over or self.leg is None or self.leg.is_gone:
            return
        try:
            await rest.connect(self.uuid, self._way_back(self))
            async with asyncio.timeout(BACK_S):
                await self._came_back.wait()
        except (CarrierError, TimeoutError):
            if not self.over:
                self.lost("the caller did not come back from a transfer")

    def _say(self, summary: str, text: str) -> None:
        if self._connection is None:
            return
        self._connection.send(text)
        if self.leg is not None:
            self.leg.noted("sent", summary, text)
