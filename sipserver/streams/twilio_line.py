"""One call of Twilio as a leg drives it: over one stream after the other, and over the REST API.

Owns what a call at Twilio is in between: with us, away at somebody else's, on its way back. Satisfies `contract.Line`.
Refuses to know who is let in (`twilio`) and what a leg does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from sipserver.errors import CarrierError
from sipserver.gate.close_codes import Close
from sipserver.gate.connection import Connection
from sipserver.streams import twilio_messages as messages
from sipserver.streams import twiml
from sipserver.streams.contract import WireFormat
from sipserver.streams.leg import StreamLeg
from sipserver.streams.settings import TwilioAccount

BACK_S = 10.0
"""How long a caller may take to come back to us from a transfer that failed."""
RING_S = 60


class Rest(Protocol):
    """What a call needs of Twilio's REST API, as `twilio_rest.TwilioRest` gives it."""

    async def hang_up(self, call_sid: str) -> None: ...

    async def do(self, call_sid: str, twiml: str) -> None: ...


class TwilioLine:
    """Satisfies `contract.Line`. Loop thread.

    key: how we know the call; in its tokens. call_sid: how Twilio knows it; empty until that is told. rest: None: we
    have no auth token, so that nothing but the stream is ours. way_back: the TwiML that brings the call to us again.
    """

    wire: WireFormat = "mulaw8"
    marks = True

    def __init__(
        self,
        account: TwilioAccount,
        key: str,
        call_sid: str,
        rest: Rest | None,
        *,
        base_url: str,
        shown: str,
        way_back: Callable[[TwilioLine], str],
    ) -> None:
        self.account, self.key, self.call_sid, self.base_url = account, key, call_sid, base_url
        self.lead_ms = account.lead_ms
        self.leg: StreamLeg | None = None
        self.over = self.away = self.handed_over = False
        self.ways_back = 0
        self._rest, self._shown, self._way_back = rest, shown, way_back
        self._connection: Connection | None = None
        self._stream_sid = self._before = self._after = ""
        self._waiting: dict[str, None] = {}
        self._cleared: set[str] = set()
        self._outcome: asyncio.Future[int] | None = None
        self._came_back = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    # --- contract.Line ------------------------------------------------------------------------------------------------

    @property
    def can_refer(self) -> bool:
        return self._rest is not None and bool(self.base_url)

    def play(self, payload: bytes) -> None:
        """Nothing while the call is not with us. Dropped, and counted by the connection, while Twilio does not take
        what we send.
        """
        if self._connection is not None:
            self._connection.send(f"{self._before}{messages.base64_of(payload)}{self._after}", droppable=True)

    def mark(self, name: str) -> None:
        self._waiting[name] = None
        self._say(f"mark {name}", messages.mark(self._stream_sid, name))

    def clear(self) -> None:
        """Twilio returns the marks of what it throws away: those that are out now will not have been heard."""
        self._cleared.update(self._waiting)
        self._waiting.clear()
        self._say("clear", messages.clear(self._stream_sid))

    async def press(self, digits: str, duration_ms: int) -> bool:
        """Media Streams carry no digits towards the caller: tones do."""
        return False

    async def refer(self, to_uri: str) -> int:
        """Twilio connects the caller to somebody else, and tells what became of it. When nobody answers, the caller
        comes back to the same leg before this returns. Cancelled, it has the caller come back, too.
        """
        rest = self._rest
        if rest is None or not self.can_refer or not self.call_sid:
            raise CarrierError("the call cannot be transferred: there is no auth token or no public address", 501)
        if self.away:
            raise CarrierError("the call is being transferred already", 491)
        url = f"{self.base_url}/webhooks/twilio/{self.account.name}"
        words = twiml.dial(
            to_uri,
            shown=self._shown,
            action_url=f"{url}/dialled?refer={self.key}",
            told_url=f"{url}/status?refer={self.key}",
            ring_s=RING_S,
        )
        self.away = True
        self._came_back.clear()
        outcome: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._outcome = outcome
        try:
            await rest.do(self.call_sid, words)
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
        """Twilio goes on with the TwiML, in which nothing follows the stream; whoever has been handed over goes on."""
        self.over = True
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close(Close.DONE, reason)
        elif not self.handed_over and self._rest is not None and self.call_sid:
            await self._rest.hang_up(self.call_sid)

    # --- what Twilio tells --------------------------------------------------------------------------------------------

    def connected(self, connection: Connection, stream_sid: str) -> None:
        """A stream for this call: the first one, or one after a transfer that failed."""
        earlier, self._connection = self._connection, connection
        if earlier is not None:
            earlier.close_soon(Close.REPLACED)
        self._stream_sid = stream_sid
        self._before, self._after = messages.media_maker(stream_sid)
        self.away = False
        self._came_back.set()

    def disconnected(self, connection: Connection) -> bool:
        """A stream is over. True: so is the call; False: it is away, or has another stream."""
        if self._connection is not connection:
            return not self.away and self._connection is None
        self._connection = None
        return not self.away

    def told(self, status: int) -> None:
        """What became of a transfer, as a SIP status."""
        if self._outcome is not None and not self._outcome.done():
            self.handed_over = status == twiml.FINAL["answered"]
            self._outcome.set_result(status)

    def lost(self, cause: str) -> None:
        """The call is over at Twilio."""
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
        """End what still runs."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _fetch(self, rest: Rest) -> None:
        """Nobody waits for the transfer any more: bring the caller back, if it has not been connected yet."""
        if self.handed_over or self.over:
            return

        async def fetched() -> None:
            try:
                await rest.do(self.call_sid, self._way_back(self))
            except CarrierError as problem:
                self.lost(str(problem))

        task = asyncio.get_running_loop().create_task(fetched(), name="twilio way back")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _say(self, summary: str, text: str) -> None:
        if self._connection is not None:
            self._connection.send(text)
        if self.leg is not None:
            self.leg.noted("sent", summary, text)
