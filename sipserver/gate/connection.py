"""One guarded WebSocket, of a client that came to us or of a server that we called: the same for both.

Owns what may go out and come in: back-pressure, heartbeat, limits of length and rate, text or binary, and the one way
in which it ends. The frames are aiohttp's. Refuses to know what the messages say and who may open a WebSocket.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket as sockets
import time
from collections.abc import AsyncIterator
from typing import Literal

import aiohttp
from aiohttp import WSMessage, WSMsgType, web
from aiohttp.http import WebSocketWriter

from sipserver.errors import CarrierError
from sipserver.gate.close_codes import Close, reason_of
from sipserver.gate.settings import GateSettings

Takes = Literal["any", "text", "binary"]
Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse

CLOSE_S = 2.0
"""A peer that does not answer our close frame in this time is cut."""

_MOST_REASON_BYTES = 123


class Connection:
    """A WebSocket that is open, without compression (`compress=False`: 50 tiny messages a second are not worth it) and
    without aiohttp's own pings (`autoping=False`). Loop thread.

    Somebody must always be in `receive`: there the peer's pings are answered, and its life is seen. peer: who is at the
    far end, for logs. kind: for metrics; few values. takes: what kind of messages; others end it with 1003.
    """

    __slots__ = (
        "_beat",
        "_by_peer",
        "_cause",
        "_closing",
        "_code",
        "_controls",
        "_heard_at_ping",
        "_loop",
        "_pinged_s",
        "_rate_debt",
        "_rate_left",
        "_rate_s",
        "_settings",
        "_slow_watch",
        "_socket",
        "_takes",
        "_transport",
        "_writer",
        "dropped",
        "kind",
        "peer",
        "received",
        "received_bytes",
        "round_trip_ms",
        "sent",
        "sent_bytes",
        "tenant",
    )

    def __init__(
        self,
        socket: Socket,
        settings: GateSettings,
        *,
        kind: str,
        peer: str = "",
        tenant: str = "",
        takes: Takes = "any",
    ) -> None:
        self.kind, self.peer, self.tenant = kind, peer, tenant
        self.sent = self.received = self.dropped = self.sent_bytes = self.received_bytes = 0
        self.round_trip_ms: float | None = None
        self._socket, self._settings, self._takes = socket, settings, takes
        self._loop = asyncio.get_running_loop()
        self._writer, self._transport = _below(socket)
        self._code, self._cause, self._by_peer = 0, "", False
        self._closing: asyncio.Task[None] | None = None
        self._slow_watch: asyncio.TimerHandle | None = None
        self._rate_left, self._rate_s, self._rate_debt = settings.messages_per_s, self._loop.time(), 0.0
        self._controls, self._heard_at_ping, self._pinged_s = 0, -1, 0.0
        self._beat = self._loop.call_later(settings.heartbeat_s, self._heartbeat)
        self._keep_kernel_queue_short()

    # --- what it is ---------------------------------------------------------------------------------------------------

    @property
    def response(self) -> web.WebSocketResponse:
        """What a handler of aiohttp's server has to return. Only of a client that came to us."""
        if not isinstance(self._socket, web.WebSocketResponse):
            raise TypeError("this connection was opened by us")
        return self._socket

    @property
    def protocol(self) -> str:
        """The sub-protocol that was agreed; empty: none."""
        ours = isinstance(self._socket, web.WebSocketResponse)
        return (self._socket.ws_protocol if ours else self._socket.protocol) or ""  # type: ignore[union-attr]

    @property
    def open(self) -> bool:
        return not self._code

    @property
    def code(self) -> int:
        """With what it ended: the peer's code, or ours; 1005 none was given, 1006 lost. 0: it is open."""
        return self._code

    @property
    def cause(self) -> str:
        """The reason that the peer or we gave."""
        return self._cause

    @property
    def by_peer(self) -> bool:
        """Whether the peer ended it (or the network), not we."""
        return self._by_peer

    @property
    def waiting_bytes(self) -> int:
        """What the peer has not taken yet, without what the kernels hold."""
        return self._transport.get_write_buffer_size()

    @property
    def paused(self) -> bool:
        """The peer is so slow that droppable messages are dropped."""
        return self.waiting_bytes > self._settings.queue_bytes

    # --- out ----------------------------------------------------------------------------------------------------------

    def send(self, message: str | bytes, *, droppable: bool = False) -> bool:
        """Hand over one message, text or binary. Never blocks. False: it was not sent, since the connection is over, or
        since it is droppable and the peer is slow. What is not droppable waits up to four times queue_bytes; then, or
        after slow_s of slowness, the connection ends with 4429.
        """
        if self._code:
            return False
        if isinstance(message, str):
            payload, opcode = message.encode(), WSMsgType.TEXT
        else:
            payload, opcode = message, WSMsgType.BINARY
        waiting = self._transport.get_write_buffer_size()
        if waiting > self._settings.queue_bytes and not self._may_wait(waiting + len(payload), droppable):
            self.dropped += 1
            return False
        if not self._write(payload, opcode):
            return False
        self.sent += 1
        self.sent_bytes += len(payload)
        return True

    def send_frames(self, frames: bytes, count: int) -> bool:
        """As `send`, so many text messages that many clients get, made once for all by `frames.text_frame`. Only of a
        client that came to us: a client's frames are masked, each in its own way.
        """
        if self._code:
            return False
        waiting = self._transport.get_write_buffer_size()
        if waiting > self._settings.queue_bytes and not self._may_wait(waiting + len(frames), droppable=False):
            self.dropped += count
            return False
        if self._transport.is_closing():  # `receive` will say so
            return False
        self._transport.write(frames)
        self.sent += count
        self.sent_bytes += len(frames)
        return True

    def _may_wait(self, would_wait: int, droppable: bool) -> bool:
        """The peer is slow: whether a message may join the queue all the same."""
        if self._slow_watch is None:
            self._slow_watch = self._loop.call_later(self._settings.slow_s, self._still_slow)
        if droppable:
            return False
        if would_wait > 4 * self._settings.queue_bytes:
            self.close_soon(Close.TOO_SLOW)
            return False
        return True

    def _still_slow(self) -> None:
        self._slow_watch = None
        if self.paused:
            self.close_soon(Close.TOO_SLOW)

    def _write(self, payload: bytes, opcode: WSMsgType) -> bool:
        """aiohttp writes a frame in the first step of its coroutine; what it might wait for after that, that the
        transport has room again, is ours to watch. So no task is needed.
        """
        writing = self._writer.send_frame(payload, opcode)
        try:
            writing.send(None)
        except StopIteration:
            return True
        except (ConnectionError, RuntimeError, aiohttp.ClientError):  # it closes; `receive` will say so
            return False
        writing.close()
        return True

    # --- in -----------------------------------------------------------------------------------------------------------

    async def receive(self) -> str | bytes | None:
        """The next message, or None when the connection is over (`code`, `cause`). Safe to cancel on the server's
        side. One at a time.
        """
        while not self._code:
            message = await self._socket.receive()
            kind = message.type
            if kind is WSMsgType.TEXT or kind is WSMsgType.BINARY:
                self.received += 1
                self.received_bytes += len(message.data)
                self._rate_left -= 1
                if self._rate_left <= 0 and self._too_fast():
                    await self.close(Close.TOO_MANY_MESSAGES)
                elif self._takes != "any" and (self._takes == "text") is not (kind is WSMsgType.TEXT):
                    await self.close(Close.WRONG_TYPE, f"only {self._takes} messages are taken here")
                elif not self._code:
                    taken: str | bytes = message.data
                    return taken
            else:
                self._control(message)
        return None

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        while (message := await self.receive()) is not None:
            yield message

    def _control(self, message: WSMessage) -> None:
        match message.type:
            case WSMsgType.PING:
                self._count_control()
                if not self._code and not self.paused:  # who does not read waits for no answer
                    self._write(message.data, WSMsgType.PONG)
            case WSMsgType.PONG:
                self._count_control()
                self.round_trip_ms = (time.monotonic() - self._pinged_s) * 1000
            case WSMsgType.CLOSE:
                self._end(message.data or Close.NO_CODE, message.extra or "", by_peer=True)
            case WSMsgType.ERROR if isinstance(message.data, aiohttp.WebSocketError):
                code = message.data.code
                self._end(code, reason_of(code) or str(message.data), by_peer=False)
            case _:  # CLOSED, CLOSING, or an error of the network; our own end has been noted before
                self._end(Close.LOST, Close.LOST.reason, by_peer=True)

    def _count_control(self) -> None:
        self._controls += 1
        self._rate_left -= 1
        if self._rate_left <= 0 and self._too_fast():
            self.close_soon(Close.TOO_MANY_MESSAGES)

    def _too_fast(self) -> bool:
        """Asked after every messages_per_s messages, which should take a second: how much faster they came adds up."""
        now_s = self._loop.time()
        self._rate_debt = max(0.0, self._rate_debt + 1.0 - (now_s - self._rate_s))
        self._rate_left, self._rate_s = self._settings.messages_per_s, now_s
        return self._rate_debt > 1.0

    # --- life and end -------------------------------------------------------------------------------------------------

    async def close(self, code: int = Close.DONE, reason: str = "") -> None:
        """End it and wait until it is over, CLOSE_S at most; the first code and reason count. Idempotent. Nobody needs
        to be out of `receive`. reason: by default what `Close` says; at most 123 bytes of UTF-8 go out.
        """
        self.close_soon(code, reason)
        if self._closing is not None and self._closing is not asyncio.current_task():
            await asyncio.shield(self._closing)

    def close_soon(self, code: int = Close.DONE, reason: str = "") -> None:
        """As `close`, without waiting: nothing more is sent or received."""
        if self._code:
            return
        self._end(code, reason or reason_of(code), by_peer=False)
        self._closing = self._loop.create_task(self._shut(), name=f"close {self.kind} websocket")

    async def _shut(self) -> None:
        reason = self._cause.encode()[:_MOST_REASON_BYTES].decode(errors="ignore").encode()
        with contextlib.suppress(RuntimeError):  # uvloop: it is gone already
            self._transport.set_write_buffer_limits(0)  # aiohttp waits then until the last byte has gone
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._socket.close(code=self._code, message=reason)
        except TimeoutError:
            self._transport.abort()

    def _end(self, code: int, cause: str, *, by_peer: bool) -> None:
        if self._code:
            return
        self._code, self._cause, self._by_peer = int(code), cause, by_peer
        self._beat.cancel()
        if self._slow_watch is not None:
            self._slow_watch.cancel()

    def _heartbeat(self) -> None:
        """A ping every heartbeat_s; when nothing at all came since the last one, nobody is there."""
        heard = self.received + self._controls
        if heard == self._heard_at_ping:
            self.close_soon(Close.SILENT)
            return
        self._heard_at_ping, self._pinged_s = heard, time.monotonic()
        self._write(b"", WSMsgType.PING)
        self._beat = self._loop.call_later(self._settings.heartbeat_s, self._heartbeat)

    def _keep_kernel_queue_short(self) -> None:
        """The kernel would take megabytes for a peer that does not read: minutes of sound, before we notice."""
        socket = self._transport.get_extra_info("socket")
        if socket is not None and socket.family in {sockets.AF_INET, sockets.AF_INET6}:
            socket.setsockopt(sockets.SOL_SOCKET, sockets.SO_SNDBUF, self._settings.queue_bytes)


def _below(socket: Socket) -> tuple[WebSocketWriter, asyncio.Transport]:
    """aiohttp gives no other way to what lies below a WebSocket that we opened; and 50 frames a second of each of many
    need not pass through one more coroutine. Raises CarrierError: it is over.
    """
    writer = socket._writer
    if writer is None or writer.transport is None or writer.transport.is_closing():
        raise CarrierError("the connection was lost while it was opened")
    return writer, writer.transport
