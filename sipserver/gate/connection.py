"""One guarded WebSocket: ours or theirs, the same for whoever speaks a protocol on it.

Owns back-pressure, the limits of what comes in, pings, and why it ended. Refuses to know what is said. A send never
waits: what the client does not take waits in the transport, whose length is watched here, so that nothing is buffered
without bound. No compression: messages are small, and 50 a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import aiohttp
from aiohttp import WSMessage, WSMsgType, web

from sipserver.gate.close_codes import CloseCode
from sipserver.gate.settings import GateSettings
from sipserver.log import logger

WebSocket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse

_DEAD_AFTER = 4
"""So many times `queue_bytes` may wait before a connection is cut."""
_BURST_S = 2.0
"""So long a client may send more than its limit, e.g. what waited while its network stood still."""
_CLOSE_S = 2.0
"""How long a close waits for the peer's own."""


class Connection:
    """All methods: loop thread. Made by `gate.Gate`, or by whoever connects to somebody else. kind: for metrics.

    peer: host:port or host. `receive` until None; then `code` and `cause` say why it ended.
    """

    def __init__(self, socket: WebSocket, settings: GateSettings, *, kind: str, peer: str, tenant: str = "") -> None:
        self.kind, self.peer, self.tenant = kind, peer, tenant
        self.code: int = 0
        """Of the end; 0: it has not ended."""
        self.cause = ""
        self.by_peer = False
        self.received = self.sent = self.dropped = 0
        self.round_trip_ms: float | None = None
        """Of the last ping."""
        self._socket, self._settings = socket, settings
        self._loop = asyncio.get_running_loop()
        writer: Any = socket._writer  # aiohttp has no send that does not wait
        self._writer, self._transport = writer, writer.transport
        self.heard_at_s = self._loop.time()
        self._pinged_at_s: float | None = None
        self._slow_since_s: float | None = None
        self._credit = _BURST_S * settings.messages_per_s
        self._counted_at_s = self.heard_at_s
        self._closing: asyncio.Task[None] | None = None

    @property
    def closed(self) -> bool:
        return self.code != 0

    @property
    def waiting_bytes(self) -> int:
        """What the client has not taken yet."""
        return int(self._transport.get_write_buffer_size()) if self._transport is not None else 0

    # --- out ----------------------------------------------------------------------------------------------------------

    def send(self, message: str | bytes, *, droppable: bool = False) -> bool:
        """Text or binary, at once. False: nothing was sent, because the connection is over, or because it is droppable
        and the client is slow. Of what may not be dropped so much waits that the connection is cut at last.
        """
        if self.code:
            return False
        waiting = self._transport.get_write_buffer_size() if self._transport is not None else 0
        if waiting > self._settings.queue_bytes:
            if self._is_dead(waiting):
                self.close_soon(CloseCode.TOO_SLOW, "the client does not take what we send")
                return False
            if droppable:
                self.dropped += 1
                return False
        elif self._slow_since_s is not None:
            self._slow_since_s = None
        if isinstance(message, str):
            done = self._push(self._writer.send_frame(message.encode(), WSMsgType.TEXT))
        else:
            done = self._push(self._writer.send_frame(message, WSMsgType.BINARY))
        self.sent += done
        return done

    def ping(self) -> None:
        """Ask whether the peer lives; its answer sets `round_trip_ms`."""
        if not self.code and self._pinged_at_s is None:
            self._pinged_at_s = self._loop.time()
            self._push(self._writer.send_frame(b"", WSMsgType.PING))

    def look(self, now_s: float) -> None:
        """Once a second or so: ping a silent peer, cut one that does not answer, or that has been slow for too long."""
        if self.code:
            return
        beat_s, pinged_at_s = self._settings.heartbeat_s, self._pinged_at_s
        silent_s = now_s - self.heard_at_s
        if pinged_at_s is not None and self.heard_at_s < pinged_at_s:
            if now_s - pinged_at_s >= beat_s:
                self.close_soon(CloseCode.SILENT, f"not a word for {silent_s:.0f} s")
        elif silent_s >= beat_s:
            self._pinged_at_s = None  # an answer that never came, though other words did
            self.ping()
        elif self._slow_since_s is not None and self._is_dead(self.waiting_bytes):
            self.close_soon(CloseCode.TOO_SLOW, "the client does not take what we send")

    # --- in -----------------------------------------------------------------------------------------------------------

    async def receive(self) -> str | bytes | None:
        """The next message, None at the end. Safe to cancel. Messages beyond the limits end the connection."""
        while not self.code:
            message: WSMessage = await self._socket.receive()
            self.heard_at_s = self._loop.time()
            if message.type is WSMsgType.TEXT or message.type is WSMsgType.BINARY:
                self.received += 1
                if not self._is_within_rate():
                    await self.close(CloseCode.REFUSED, f"more than {self._settings.messages_per_s} messages a second")
                    return None
                found: str | bytes = message.data
                return found
            if message.type is WSMsgType.PING:
                self._push(self._writer.send_frame(message.data, WSMsgType.PONG))
            elif message.type is WSMsgType.PONG:
                if self._pinged_at_s is not None:
                    self.round_trip_ms = (self.heard_at_s - self._pinged_at_s) * 1000
                    self._pinged_at_s = None
            else:
                self._ended_by(message)
        return None

    def __aiter__(self) -> Connection:
        return self

    async def __anext__(self) -> str | bytes:
        message = await self.receive()
        if message is None:
            raise StopAsyncIteration
        return message

    # --- the end ------------------------------------------------------------------------------------------------------

    async def close(self, code: int = CloseCode.DONE, cause: str = "") -> None:
        """Say why, and wait a moment for the peer. Idempotent: the first cause stays. Safe to cancel."""
        self.close_soon(code, cause)
        if self._closing is not None:
            await asyncio.shield(self._closing)

    def close_soon(self, code: int = CloseCode.DONE, cause: str = "") -> None:
        """As `close`, without waiting: from now on nothing is sent, and `receive` answers None."""
        if not self.code:
            self.code, self.cause = int(code), cause
            self._closing = self._loop.create_task(self._close(int(code), cause), name=f"close {self.kind}")

    async def ended(self) -> None:
        """Wait until a close that was begun is over."""
        if self._closing is not None:
            await asyncio.shield(self._closing)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _push(self, sending: Coroutine[Any, Any, None]) -> bool:
        """Have a frame written without waiting: all that a send waits for is that the transport empties, which is
        watched here. False when the connection is gone.
        """
        try:
            sending.send(None)
        except StopIteration:
            return True
        except (ConnectionError, RuntimeError):
            return False
        sending.close()
        return True

    def _is_dead(self, waiting: int) -> bool:
        now_s = self._loop.time()
        if waiting <= self._settings.queue_bytes:
            self._slow_since_s = None
            return False
        if self._slow_since_s is None:
            self._slow_since_s = now_s
        slow_s = now_s - self._slow_since_s
        return waiting > _DEAD_AFTER * self._settings.queue_bytes or slow_s > self._settings.slow_s

    def _is_within_rate(self) -> bool:
        """A bucket that holds _BURST_S of messages and fills with the limit."""
        self._credit -= 1
        if self._credit < 0:
            rate, now_s = self._settings.messages_per_s, self.heard_at_s
            self._credit += min(_BURST_S * rate, (now_s - self._counted_at_s) * rate)
            self._counted_at_s = now_s
        return self._credit >= 0

    def _ended_by(self, message: WSMessage) -> None:
        """The peer closed, or what it sent is no WebSocket, or too long; aiohttp has closed then."""
        if self.code:
            return
        code = self._socket.close_code
        if message.type is WSMsgType.ERROR and isinstance(message.data, aiohttp.WebSocketError):
            self.code, self.cause = int(message.data.code), str(message.data)
        else:
            self.by_peer = True
            clean = message.type is WSMsgType.CLOSE
            self.code = int(code or message.data or CloseCode.BROKEN) if clean else int(code or CloseCode.BROKEN)
            self.cause = str(message.extra or "") if clean else ""
            if self.code == CloseCode.DONE and not clean:
                self.code, self.cause = CloseCode.BROKEN, "the connection broke"
        if not self._socket.closed:
            self._closing = self._loop.create_task(self._close(CloseCode.DONE, ""), name=f"close {self.kind}")

    async def _close(self, code: int, cause: str) -> None:
        try:
            async with asyncio.timeout(_CLOSE_S):
                # A close frame holds 125 bytes: two for the code (RFC 6455, 5.5).
                await self._socket.close(code=code, message=cause.encode()[:123])
        except (TimeoutError, ConnectionError, RuntimeError) as problem:
            logger("gate").debug("not closed in order", kind=self.kind, error=str(problem))
        finally:
            if self._transport is not None and not self._socket.closed:
                self._transport.abort()
