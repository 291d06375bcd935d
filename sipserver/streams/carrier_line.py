"""One call at a carrier as a leg drives it: over one WebSocket after the other, and over the carrier's REST API.

Owns what a call at a carrier is in between: with us, away at somebody else's, on its way back; and the marks that are
out. Refuses to know the words on the WebSocket and in requests (`twilio_line`, `vonage_line`), who is let in and what a
leg does.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Protocol

from sipserver.errors import CarrierError
from sipserver.gate.close_codes import Close
from sipserver.gate.connection import Connection
from sipserver.streams.contract import WireFormat
from sipserver.streams.leg import StreamLeg

BACK_S = 10.0
"""How long a caller may take to come back to us from a transfer that failed."""
ANSWERED = 200


class Account(Protocol):
    """One account of ours at a carrier."""

    @property
    def name(self) -> str: ...

    @property
    def lead_ms(self) -> int: ...


class CarrierLine(ABC):
    """The part of `contract.Line` that carriers have in common. Loop thread.

    key: how we know the call; in its tokens. call_id: how the carrier knows it; empty until that is told. base_url: how
    the carrier reaches us. over: the line has done with the call. away: the caller is being connected to somebody else;
    handed_over: they are.
    """

    marks = True
    wire: WireFormat

    def __init__(self, account: Account, key: str, call_id: str, base_url: str) -> None:
        self.account, self.lead_ms = account, account.lead_ms
        self.key, self.call_id, self.base_url = key, call_id, base_url
        self.leg: StreamLeg | None = None
        self.over = self.away = self.handed_over = False
        self.ways_back = 0
        self._connection: Connection | None = None
        self._waiting: dict[str, None] = {}
        self._cleared: set[str] = set()
        self._outcome: asyncio.Future[int] | None = None
        self._came_back = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    # --- what the carriers differ in ----------------------------------------------------------------------------------

    @abstractmethod
    def play(self, payload: bytes) -> None:
        """See `contract.Line`. Nothing while the call is not with us. Dropped, and counted by the connection, while the
        carrier does not take what we send.
        """

    @abstractmethod
    def mark(self, name: str) -> None: ...

    @abstractmethod
    def clear(self) -> None: ...

    @abstractmethod
    async def press(self, digits: str, duration_ms: int) -> bool: ...

    @property
    @abstractmethod
    def can_refer(self) -> bool:
        """Whether we can ask the carrier for anything at all."""

    @abstractmethod
    async def _send_away(self, to_uri: str) -> None:
        """Have the caller connected to somebody else. Raises CallerError for what the carrier cannot call, CarrierError
        when it says no.
        """

    @abstractmethod
    async def _send_back(self) -> None:
        """Have the caller connected to us again. Raises CarrierError."""

    @abstractmethod
    async def _end(self) -> None:
        """End the call by the REST API. Raises CarrierError."""

    # --- contract.Line ------------------------------------------------------------------------------------------------

    async def refer(self, to_uri: str) -> int:
        """The carrier connects the caller to somebody else, and tells what became of it. When nobody answers, the
        caller comes back to the same leg before this returns. Cancelled, it has the caller come back, too.
        """
        if not self.can_refer or not self.call_id:
            raise CarrierError("the call cannot be transferred: the account lacks a key, or we a public address", 501)
        if self.away:
            raise CarrierError("the call is being transferred already", 491)
        self.away = True
        self._came_back.clear()
        outcome: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._outcome = outcome
        try:
            await self._send_away(to_uri)
            status = await outcome
        except asyncio.CancelledError:
            self._fetch()
            raise
        except Exception:
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
        """Closing the WebSocket ends the call, since nothing follows it; whoever has been handed over goes on."""
        self.over = True
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close(Close.DONE, reason)
        elif not self.handed_over and self.can_refer and self.call_id:
            await self._end()

    # --- what the carrier tells ---------------------------------------------------------------------------------------

    def connected(self, connection: Connection) -> None:
        """A WebSocket for this call: the first one, or one after a transfer that failed."""
        earlier, self._connection = self._connection, connection
        if earlier is not None:
            earlier.close_soon(Close.REPLACED)
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
            self.handed_over = status == ANSWERED
            self._outcome.set_result(status)

    def lost(self, cause: str) -> None:
        """The call is over at the carrier."""
        self.over = True
        if self._outcome is not None and not self._outcome.done():
            self._outcome.set_exception(CarrierError(cause, 487))
            self._outcome.exception()  # it may be that nobody waits any more
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close_soon(Close.DONE)
        if self.leg is not None:
            self.leg.gone(0, cause, by_peer=True)

    def returned(self, name: str) -> bool:
        """A mark came back. True: its sound was thrown away."""
        self._waiting.pop(name, None)
        if name in self._cleared:
            self._cleared.discard(name)
            return True
        return False

    async def close(self) -> None:
        """End what still runs for this call."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- for the carriers ---------------------------------------------------------------------------------------------

    def _mark(self, name: str) -> None:
        self._waiting[name] = None

    def _throw_away(self) -> None:
        """The marks that are out now will not have been heard."""
        self._cleared.update(self._waiting)
        self._waiting.clear()

    def _say(self, summary: str, text: str) -> None:
        if self._connection is None:
            return
        self._connection.send(text)
        if self.leg is not None:
            self.leg.noted("sent", summary, text)

    def _fetch(self) -> None:
        """Nobody waits for the outcome of a transfer any more: have the caller back."""
        self.handed_over = False
        task = asyncio.get_running_loop().create_task(self._bring_back(), name="bring a caller back")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _bring_back(self) -> None:
        if self.over or self.leg is None or self.leg.is_gone:
            return
        try:
            await self._send_back()
            async with asyncio.timeout(BACK_S):
                await self._came_back.wait()
        except (CarrierError, TimeoutError):
            if not self.over:
                self.lost("the caller did not come back from a transfer")


async def ring(leg: StreamLeg, timeout_s: float) -> None:
    """Wait for the answer to a call that we placed; without one in time it ends with 408."""
    try:
        async with asyncio.timeout(timeout_s):
            await leg.answer()
    except TimeoutError:
        await leg.hangup(408)
    except CarrierError:  # it has ended meanwhile
        return
