"""A WebSocket to somebody's bot: connect, carry sound and messages both ways, and say how it ended.

Owns the connection, its bounds and its end. The words are the dialect's, what waits to be heard is the speaker's.
All of it: loop thread.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import aiohttp
from twilio.request_validator import RequestValidator

from sipserver.audio.frame import Frame, Samples
from sipserver.audio.playout import Playout
from sipserver.errors import BadPayload, ProviderError, ProviderRejected, ProviderTimeout
from sipserver.events import Emit, Fault
from sipserver.events.streams import BotConnected, BotDisconnected, BotMark
from sipserver.log import logger
from sipserver.open_files import high_socket
from sipserver.streams.bots.asterisk import AsteriskDialect
from sipserver.streams.bots.contract import (
    Ask,
    Clear,
    Dialect,
    Direction,
    Drained,
    HangUp,
    Mark,
    Message,
    Nothing,
    Order,
    Pause,
    Sound,
    Status,
    Unknown,
)
from sipserver.streams.bots.pcm import PcmDialect
from sipserver.streams.bots.speaker import Speaker
from sipserver.streams.bots.twilio import TwilioDialect
from sipserver.streams.bots.vonage import VonageDialect
from sipserver.streams.wire import ToWire

DIALECTS: Mapping[str, Callable[[Order], Dialect]] = {
    "twilio": TwilioDialect,
    "vonage": VonageDialect,
    "asterisk": AsteriskDialect,
    "asterisk-json": partial(AsteriskDialect, as_json=True),
    "pcm": PcmDialect,
}

MESSAGE_BYTES = 1 << 21
"""The longest message that is taken from a bot: two minutes of mu-law in base64 with room to spare."""

WAITING = 250
"""So many of our messages may wait for a bot that does not read: 5 s of the caller. Then it is too slow."""

MOST_BAD = 20
"""So many messages that cannot be read, and the peer does not speak the protocol."""

CLOSE_S = 1.0
"""How long a bot may take to answer our closing."""

_IN_ORDER = frozenset({1000, 1001, 1005})
"""Close codes of a bot that is done: normal, going away, none given (RFC 6455, 7.4.1)."""

TOO_SLOW, NO_PROTOCOL = 1008, 1002


@dataclass(frozen=True, slots=True)
class Over:
    """outcome: `done`, `failed`, `silent`. by: `bot`, `us`, `fault`. code: of the close; 0: there was none."""

    outcome: str
    by: str
    code: int = 0
    cause: str = ""


class BotClient:
    """`calls.bots.Bots`. tls: None: whom the system trusts (SSL_CERT_FILE counts). heartbeat_s: we ping after so long
    without a word of the bot's; half as long without an answer, and it is gone.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, heartbeat_s: float = 10.0) -> None:
        self._tls = tls
        self._heartbeat_s = heartbeat_s

    async def open(self, order: Order, playout: Playout, emit: Emit) -> BotLink:
        """Connect, within order.connect_s, and say who calls. Raises ProviderError. Safe to cancel.

        Use the link as an async context: leaving it closes.
        """
        began_s = time.monotonic()
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(socket_factory=high_socket), auto_decompress=False
        )
        try:
            dialect = DIALECTS[order.protocol](order)
            async with asyncio.timeout(order.connect_s):
                socket = await session.ws_connect(
                    order.url,
                    headers=_headers(order),
                    protocols=dialect.subprotocols,
                    heartbeat=self._heartbeat_s,
                    max_msg_size=MESSAGE_BYTES,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),
                    ssl=self._tls or True,
                )
        except TimeoutError as problem:
            await session.close()
            raise ProviderTimeout("bot", f"no connection within {order.connect_s:g} s") from problem
        except aiohttp.WSServerHandshakeError as problem:
            await session.close()
            raise ProviderRejected("bot", f"it answered {problem.status} to the handshake") from problem
        except (aiohttp.ClientError, OSError, ValueError) as problem:
            await session.close()
            raise ProviderError("bot", f"no connection: {type(problem).__name__}") from problem
        except BaseException:
            await session.close()
            raise
        took_ms = round((time.monotonic() - began_s) * 1000)
        emit(BotConnected(protocol=order.protocol, took_ms=took_ms, url=order.url))
        return BotLink(order, dialect, session, socket, playout, emit)


class BotLink:
    """One connection. `run` returns how it ended; `hear`, `overhear` and `digit` never block and never raise."""

    def __init__(
        self,
        order: Order,
        dialect: Dialect,
        session: aiohttp.ClientSession,
        socket: aiohttp.ClientWebSocketResponse,
        playout: Playout,
        emit: Emit,
    ) -> None:
        self._order, self._dialect = order, dialect
        self._session, self._socket = session, socket
        self._emit = emit
        self._log = logger("streams", call=order.call_id, tenant=order.tenant)
        self._speaker = Speaker(playout, dialect.wire, self._on_mark, self._on_drained)
        self._to_wire = {track: ToWire(dialect.wire) for track in ("inbound", "outbound")}
        self._outbox: deque[Message] = deque(dialect.opening())
        self._more = asyncio.Event()
        self._more.set()
        self._over: asyncio.Future[Over] = asyncio.get_running_loop().create_future()
        self._began_s = time.monotonic()
        self._spoke_s = self._began_s
        self._leaves: Over | None = None
        self._speaks, self._hears = order.both, True
        self._sent_frames = 0
        self._bad = self._unknown = 0
        self._overflowed = False
        self._reason = "the step is over"
        self._tasks = [
            asyncio.create_task(self._send(), name=f"to the bot of {order.call_id}"),
            asyncio.create_task(self._receive(), name=f"from the bot of {order.call_id}"),
        ]

    async def __aenter__(self) -> BotLink:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # --- what the call tells ------------------------------------------------------------------------------------------

    def hear(self, frame: Frame) -> None:
        """20 ms of the caller; also the clock by which the bot is heard."""
        self._speaker.tick()
        self._told(self._dialect.level(self._speaker.waiting_frames))
        if self._leaves is not None and self._speaker.idle:
            self._end(self._leaves)
        elif self._order.silent_s and self._is_silent():
            self._end(Over("silent", "us", 1000, f"nothing from it for {self._order.silent_s:g} s"))
        else:
            self._sound("inbound", frame.samples)

    def overhear(self, inbound: Frame, outbound: Frame) -> None:
        """20 ms of both directions, for a bot that only listens."""
        if self._order.tracks != "outbound":
            self._sound("inbound", inbound.samples)
        if self._order.tracks != "inbound":
            self._sound("outbound", outbound.samples)

    def digit(self, digit: str) -> None:
        self._put(self._dialect.digit(digit))

    async def run(self) -> Over:
        """Until the bot is done, has failed or is silent. Safe to cancel."""
        return await asyncio.shield(self._over)

    async def close(self) -> None:
        """Say good bye, within CLOSE_S; then cut. Idempotent. What the bot said and was not heard is thrown away."""
        self._end(Over("done", "us", 1000, self._reason))
        over = self._over.result()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._order.both:
            self._speaker.stop()
        try:
            async with asyncio.timeout(2 * CLOSE_S):
                if over.by == "us" and not self._socket.closed:
                    for message in self._dialect.closing(over.cause):
                        await self._write(message)
                code = over.code if over.by != "bot" else 1000
                await self._socket.close(code=code or 1000, message=over.cause.encode()[:120])
        except (TimeoutError, aiohttp.ClientError, OSError, RuntimeError) as problem:
            self._log.debug("a bot did not close in order", error=str(problem))
        finally:
            await self._session.close()
            if self._tasks:
                self._tasks.clear()
                self._emit(
                    BotDisconnected(
                        by=over.by,
                        code=over.code,
                        cause=over.cause,
                        sent_frames=self._sent_frames,
                        heard_ms=self._speaker.heard_ms,
                    )
                )

    # --- to the bot ---------------------------------------------------------------------------------------------------

    def _sound(self, track: str, samples: Samples) -> None:
        if not self._hears:
            return
        at_ms = round((time.monotonic() - self._began_s) * 1000)
        self._sent_frames += 1
        self._put(self._dialect.sound(self._to_wire[track].encode(samples), track, at_ms))

    def _told(self, message: Message | None) -> None:
        if message is not None:
            self._put(message)

    def _put(self, message: Message) -> None:
        if self._over.done() or self._leaves is not None:
            return
        if len(self._outbox) >= WAITING:
            self._end(Over("failed", "fault", TOO_SLOW, "it does not read what we send"))
            return
        self._outbox.append(message)
        self._more.set()

    async def _send(self) -> None:
        try:
            while True:
                await self._more.wait()
                self._more.clear()
                while self._outbox:
                    await self._write(self._outbox.popleft())
        except (aiohttp.ClientError, OSError, RuntimeError) as problem:
            self._log.debug("a bot takes no more", error=str(problem))  # why, `_receive` hears

    async def _write(self, message: Message) -> None:
        if isinstance(message, str):
            await self._socket.send_str(message)
        else:
            await self._socket.send_bytes(message)

    # --- from the bot -------------------------------------------------------------------------------------------------

    async def _receive(self) -> None:
        async for message in self._socket:
            if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                self._read(message.data)
            if self._over.done():
                return
        code, problem = int(self._socket.close_code or 0), self._socket.exception()
        if code not in _IN_ORDER:
            self._end(Over("failed", "fault", code, _why(code, problem)))
        elif not self._order.both or self._speaker.idle:
            self._end(Over("done", "bot", code))
        else:
            self._leaves = Over("done", "bot", code)  # its last words are heard first

    def _read(self, message: Message) -> None:
        try:
            ask = self._dialect.read(message)
        except BadPayload as problem:
            self._misread(str(problem))
            return
        self._do(ask)

    def _misread(self, why: str) -> None:
        self._bad += 1
        if self._bad == 1:
            self._emit(Fault(where="bot", error=f"a message that cannot be read is ignored: {why}"))
        if self._bad >= MOST_BAD:
            self._end(Over("failed", "fault", NO_PROTOCOL, f"it does not speak the protocol: {why}"))

    def _do(self, ask: Ask) -> None:
        match ask:
            case Sound(payload=payload):
                self._play(payload)
            case Mark(name=name, pad=pad):
                self._mark(name, pad)
            case Clear():
                self._speaker.clear()
                self._told(self._dialect.cleared())
            case Direction(speaks=speaks, hears=hears):
                self._speaks, self._hears = speaks and self._order.both, hears
            case HangUp():
                self._end(Over("done", "bot", 1000))
            case Unknown():
                self._unknown += 1
            case Nothing():
                pass
            case _:
                self._manage(ask)

    def _manage(self, ask: Pause | Drained | Status) -> None:
        match ask:
            case Drained():
                self._speaker.watch_drain()
            case Pause(on=on):
                self._speaker.pause(on)
            case Status():
                self._told(self._dialect.status(self._speaker.waiting_frames, paused=self._speaker.paused))

    def _play(self, payload: bytes) -> None:
        self._spoke_s = time.monotonic()
        if self._speaks and not self._speaker.sound(payload):
            self._overflow()
        self._told(self._dialect.level(self._speaker.waiting_frames))

    def _mark(self, name: str, pad: bool) -> None:
        if not self._speaks:
            self._on_mark(name, True)
        elif not self._speaker.mark(name, pad=pad):
            self._misread("too many marks wait")

    def _overflow(self) -> None:
        if not self._overflowed:
            self._overflowed = True
            self._emit(Fault(where="bot", error="it sends too far ahead: what does not fit is dropped"))

    def _on_mark(self, name: str, played: bool) -> None:
        self._emit(BotMark(name=name, played=played))
        self._told(self._dialect.marked(name, played=played))

    def _on_drained(self) -> None:
        self._told(self._dialect.drained())

    # --- its end ------------------------------------------------------------------------------------------------------

    def _is_silent(self) -> bool:
        if not self._speaker.idle:
            self._spoke_s = time.monotonic()
        return time.monotonic() - self._spoke_s > self._order.silent_s

    def _end(self, over: Over) -> None:
        """The first reason stays."""
        if not self._over.done():
            self._over.set_result(over)


def _why(code: int, problem: BaseException | None) -> str:
    if isinstance(problem, aiohttp.ServerTimeoutError):
        return "it does not answer our pings"
    return f"the connection broke: {type(problem).__name__}" if problem else f"it closed with {code}"


def _headers(order: Order) -> dict[str, str]:
    """Raises ProviderRejected when a variable of the environment is not there."""
    headers = dict(order.headers)
    for name, variable in order.headers_env.items():
        headers[name] = _secret(variable)
    if order.sign_env:
        signer = RequestValidator(_secret(order.sign_env))
        headers["X-Twilio-Signature"] = signer.compute_signature(order.url, {})
    return headers


def _secret(variable: str) -> str:
    if not (value := os.environ.get(variable, "")):
        raise ProviderRejected("bot", f"the environment has no {variable}")
    return value
