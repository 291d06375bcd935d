"""The control channel between the supervisor and each of its processes: lines of JSON on a pair of sockets.

Owns both ends and the words that they exchange. Refuses to know what a process does and when one shall end.

A child says `ready` (once, with facts about itself), `beat` (every heartbeat_s) and `draining` (it has begun to,
whoever told it); the supervisor says `drain`, `stop` and `reload`. The end of the line is a word too: to the supervisor
it means that the child is gone, to the child that the supervisor is. A child without a supervisor goes on for orphan_s,
so that a new supervisor can put its own processes in its place, then drains and ends; one that is not ready ends at
once.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sipserver.errors import SipServerError
from sipserver.log import logger

Facts = Mapping[str, Any]
"""Plain JSON-able fields."""

MOST_UNSENT = 256 * 1024
"""Bytes that wait for a supervisor that does not read; beats beyond it are left out, as the next one says it all."""


@dataclass(frozen=True, slots=True)
class Beat:
    """A child's own view of itself. calls: those that live now. loop_lag_ms: how late its loop was for this beat.
    sip_age_ms, media_age_ms: since the last turn of the sip thread and the last tick of the media clock; None where
    there is none. more: what else this kind of process tells.
    """

    loop_lag_ms: float = 0.0
    calls: int = 0
    sip_age_ms: float | None = None
    media_age_ms: float | None = None
    more: Facts = field(default_factory=dict)

    @classmethod
    def parse(cls, facts: Facts) -> Beat:
        """Raises ValueError."""
        rest = dict(facts)
        try:
            lag, calls = float(rest.pop("loop_lag_ms", 0)), int(rest.pop("calls", 0))
            sip, media = (
                None if (age := rest.pop(key, None)) is None else float(age) for key in ("sip_age_ms", "media_age_ms")
            )
        except TypeError as problem:
            raise ValueError(f"not a beat: {problem}") from None
        return cls(lag, calls, sip, media, rest)


class _Line(asyncio.Protocol):
    """JSON lines of one socket: `on_word(word, value)` for each, `on_end` once."""

    def __init__(self, on_word: Callable[[str, Any], None], on_end: Callable[[], None]) -> None:
        self._on_word, self._on_end = on_word, on_end
        self._rest = b""
        self.transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream socket can be written

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            try:
                ((word, value),) = json.loads(line).items()
                self._on_word(word, value)
            except (AttributeError, TypeError, ValueError) as problem:
                logger("control").error("word not understood", error=str(problem))

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._on_end()

    def say(self, word: str, value: Any) -> None:
        """Never blocks; lost when the other end is gone or has not read for long."""
        transport = self.transport
        if transport is not None and transport.get_write_buffer_size() < MOST_UNSENT:
            transport.write(json.dumps({word: value}, separators=(",", ":"), default=str).encode() + b"\n")

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


class Control:
    """The child's end. `open`, `beat_with`, `ready`, `obey`, `close`. Loop thread.

    drain_s: how long calls may go on when nobody says it: on SIGTERM, or orphan_s after the loss of the supervisor.
    give_up: called when the supervisor is lost before `ready`.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        heartbeat_s: float,
        drain_s: float,
        orphan_s: float,
        give_up: Callable[[], object] = lambda: None,
    ) -> None:
        self._give_up = give_up
        self._socket, self._heartbeat_s, self._drain_s, self._orphan_s = sock, heartbeat_s, drain_s, orphan_s
        self._line = _Line(self._on_word, self._on_end)
        self._facts: Callable[[], Facts] = dict
        self._changed = asyncio.Event()
        self._reload = self._stop = self._closing = self._ready = False
        self._drain_within_s: float | None = None
        self._beats: asyncio.Task[None] | None = None
        self._grace: asyncio.TimerHandle | None = None
        self._log = logger("control")
        self.orphaned = asyncio.Event()
        """Set when the supervisor is gone."""

    async def open(self) -> None:
        """Begin to beat and to listen; orders that come before `obey` wait for it."""
        await asyncio.get_running_loop().create_unix_connection(lambda: self._line, sock=self._socket)
        self._beats = asyncio.create_task(self._beat(), name="beats")

    def beat_with(self, facts: Callable[[], Facts]) -> None:
        """facts: what a beat says beside loop_lag_ms: the fields of `Beat`, others go into `Beat.more`. Called every
        heartbeat_s; must not block."""
        self._facts = facts

    async def ready(self, **facts: Any) -> None:
        """The process can do its work. facts: what the supervisor must know, e.g. sip_port and capacity of a cell."""
        self._ready = True
        self._line.say("ready", facts)

    async def obey(
        self,
        *,
        drain: Callable[[float], Awaitable[None]],
        hurry: Callable[[], None] = lambda: None,
        reload: Callable[[], None] = lambda: None,
    ) -> None:
        """Follow orders until the process shall end; then the caller closes what it opened and returns from `main`.

        drain: take nothing new, finish what there is within so many seconds (0: now), return. Called once.
        hurry: a drain that is going on shall end now. reload: the dialplans have changed (called only while not
        draining). What drain raises is raised here. Cancelling cancels the drain.
        """
        draining: asyncio.Future[None] | None = None
        try:
            while draining is None or not draining.done():
                await self._changed.wait()
                self._changed.clear()
                if self._reload and draining is None:
                    reload()
                self._reload = False
                if self._stop and draining is not None:
                    hurry()
                within_s = 0.0 if self._stop else self._drain_within_s
                if within_s is not None and draining is None:
                    self._line.say("draining", within_s)
                    draining = asyncio.ensure_future(drain(within_s))
                    draining.add_done_callback(lambda _done: self._changed.set())
            await draining
        finally:
            if draining is not None and not draining.done():
                draining.cancel()
                await asyncio.gather(draining, return_exceptions=True)

    def drain(self) -> None:
        """As if the supervisor had told us to (SIGTERM)."""
        self._on_word("drain", self._drain_s)

    async def close(self) -> None:
        """Idempotent. The supervisor notices."""
        self._closing = True
        if self._grace is not None:
            self._grace.cancel()
        if self._beats is not None:
            self._beats.cancel()
            await asyncio.gather(self._beats, return_exceptions=True)
        self._line.close()

    def _on_word(self, word: str, value: Any) -> None:
        match word:
            case "drain":
                self._drain_within_s = float(value)
            case "stop":
                self._stop = True
            case "reload":
                self._reload = True
            case _:
                raise ValueError(f"unknown word {word!r}")
        self._changed.set()

    def _on_end(self) -> None:
        if self._closing:
            return
        if not self._ready:
            self._log.warning("the supervisor is gone before this process was ready")
            self._give_up()
            return
        self._log.warning("the supervisor is gone; going on for a while", seconds=self._orphan_s)
        self.orphaned.set()
        self._grace = asyncio.get_running_loop().call_later(self._orphan_s, self.drain)

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self._heartbeat_s
            await asyncio.sleep(self._heartbeat_s)
            late_ms = (loop.time() - due) * 1000
            try:
                facts = dict(self._facts())
            except SipServerError as problem:
                self._log.error("no facts for the beat", error=str(problem))
                facts = {}
            self._line.say("beat", {"loop_lag_ms": round(late_ms, 1), **facts})


class Leash:
    """The supervisor's end for one child. `open`, orders, `close`. Loop thread.

    on_ready, on_beat, on_draining (with the seconds that it has), on_end: called on the loop; they must not block.
    on_end: the child has closed the line, so it is dead or about to be.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        on_ready: Callable[[Facts], None],
        on_beat: Callable[[Beat], None] = lambda _beat: None,
        on_draining: Callable[[float], None] = lambda _within_s: None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._socket, self._on_ready, self._on_beat, self._on_draining = sock, on_ready, on_beat, on_draining
        self._line = _Line(self._on_word, on_end)
        self.beat = Beat()
        self.heard_at = 0.0
        """Loop time of the last word."""

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self.heard_at = loop.time()
        await loop.create_unix_connection(lambda: self._line, sock=self._socket)

    def drain(self, deadline_s: float) -> None:
        """Take nothing new, end when all is done or after the deadline."""
        self._line.say("drain", deadline_s)

    def stop(self) -> None:
        """End now, in order."""
        self._line.say("stop", True)

    def reload(self) -> None:
        """The dialplans have changed."""
        self._line.say("reload", True)

    def close(self) -> None:
        self._line.close()

    def _on_word(self, word: str, value: Any) -> None:
        self.heard_at = asyncio.get_running_loop().time()
        match word:
            case "ready":
                self._on_ready(dict(value))
            case "beat":
                self.beat = Beat.parse(value)
                self._on_beat(self.beat)
            case "draining":
                self._on_draining(float(value))
            case _:
                raise ValueError(f"unknown word {word!r}")
