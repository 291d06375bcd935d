"""The Wyoming servers that can do a piece of work: who is asked, and who instead when one does not answer.

Owns their health and the connections. Refuses to know what is asked: that is for the vendors.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from wyoming.event import Event, async_read_event, async_write_event

from sipserver.errors import ProviderBusy, ProviderError, SipServerError
from sipserver.log import logger
from sipserver.speech import sockets, wire
from sipserver.speech.wire import Wish

CONNECT_S = 2.0
FIRST_REST_S = 1.0
LONGEST_REST_S = 10.0
"""A server that did not answer is asked last for this long, twice as long with every further failure."""

GRACE_S = 3.0


class Unreachable(ProviderBusy):
    """Nobody answered, or went away before the answer began: another server may be asked."""


@dataclass(slots=True)
class Link:
    """One connection. Loop thread. Reading raises Unreachable when the other side is gone, and what it reports."""

    engine: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def write(self, *events: Event) -> None:
        try:
            for event in events:
                await async_write_event(event, self.writer)
        except OSError as problem:
            raise Unreachable(self.engine, f"the connection failed: {problem}") from problem

    async def read(self) -> Event:
        """The next event that is no error."""
        try:
            event = await async_read_event(self.reader)
        except (OSError, EOFError) as problem:
            raise Unreachable(self.engine, f"the connection failed: {problem}") from problem
        except (KeyError, TypeError, AttributeError) as problem:
            raise ProviderError(self.engine, f"not understood: {type(problem).__name__}") from problem
        if event is None:
            raise Unreachable(self.engine, "the connection was closed")
        if event.type == "error":
            raise wire.raised(event, self.engine)
        return event


class Peer:
    """One server."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.in_use = 0
        self.lost = 0
        self._rests_until = 0.0
        self._rest_s = 0.0
        self._log = logger("speech", worker=uri)

    @property
    def well(self) -> bool:
        return time.monotonic() >= self._rests_until

    def failed(self, reason: str) -> None:
        """It did not answer: ask others first for a while. Failures at the same time count as one."""
        if self.well:
            self.lost += 1
            self._rest_s = min(LONGEST_REST_S, max(FIRST_REST_S, 2 * self._rest_s))
            self._rests_until = time.monotonic() + self._rest_s
            self._log.warning("speech server does not answer", reason=reason, asked_last_s=self._rest_s)

    def works(self) -> None:
        self._rests_until = self._rest_s = 0.0

    @contextlib.asynccontextmanager
    async def link(self, engine: str) -> AsyncIterator[Link]:
        """Connect; the block's end closes the connection, which abandons what was asked. Raises Unreachable."""
        self.in_use += 1
        try:
            try:
                async with asyncio.timeout(CONNECT_S):
                    reader, writer = await sockets.connect(self.uri)
            except (OSError, TimeoutError) as problem:
                reason = f"no connection: {problem or 'no answer in time'}"
                self.failed(reason)
                raise Unreachable(engine, reason) from problem
            try:
                yield Link(engine, reader, writer)
            except Unreachable as problem:
                self.failed(problem.reason)
                raise
            finally:
                writer.transport.abort()
        finally:
            self.in_use -= 1


class Peers:
    """Servers that can stand in for one another. Loop thread."""

    def __init__(self, uris: Sequence[str]) -> None:
        turn = os.getpid() % max(1, len(uris))
        self._all = [Peer(uri) for uri in (*uris[turn:], *uris[:turn])]

    @property
    def ready(self) -> bool:
        """One of them, at least, answered when it was asked last."""
        return any(peer.well for peer in self._all)

    @property
    def in_use(self) -> int:
        return sum(peer.in_use for peer in self._all)

    @property
    def lost(self) -> int:
        """How often one of them was found not to answer."""
        return sum(peer.lost for peer in self._all)

    def order(self) -> list[Peer]:
        """Whom to ask first: those that are well, and of them the one with the least of our work."""
        return sorted(self._all, key=lambda peer: (not peer.well, peer.in_use))

    async def ask(self, engine: str, question: Event, answer: str, timeout_s: float) -> Event:
        """One question with one answer, by whoever can. Raises what the last one reported, Unreachable among it."""
        last: SipServerError = Unreachable(engine, "there is no speech server")
        for peer in self.order():
            try:
                async with asyncio.timeout(timeout_s), peer.link(engine) as link:
                    await link.write(question)
                    while (event := await link.read()).type != answer:
                        continue
                    peer.works()
                    return event
            except TimeoutError:
                peer.failed("no answer in time")
                last = Unreachable(engine, f"no answer within {timeout_s:g} s")
            except Unreachable as problem:
                last = problem
        raise last

    async def load(self, wish: Wish, timeout_s: float) -> Event:
        """Have every server load the engines; returns what one of them told of itself (as for `describe`).

        Servers that take longer than GRACE_S after the first one go on by themselves.
        Raises ModelMissing, SettingsError, ProviderError as the worker met them; Unreachable when no server answers.
        """
        asking = [
            asyncio.create_task(
                Peers([peer.uri]).ask("speech worker", wish.event(), wire.LOADED, timeout_s), name="load engines"
            )
            for peer in self._all
        ]
        try:
            waiting: set[asyncio.Task[Event]] = set(asking)
            grace_s: float | None = None
            while waiting:
                done, waiting = await asyncio.wait(waiting, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    break
                if any(task.exception() is None for task in done):
                    grace_s = GRACE_S
        finally:
            for task in asking:
                task.cancel()
            answers = await asyncio.gather(*asking, return_exceptions=True)
        for told in answers:
            if isinstance(told, Exception) and not isinstance(told, Unreachable):
                raise told
        for told in answers:
            if isinstance(told, Event):
                return told
        raise Unreachable("speech worker", "no speech worker answers")
