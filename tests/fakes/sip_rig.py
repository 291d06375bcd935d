"""A running cell with listeners on its legs, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import numpy as np

from sipserver.audio.frame import Frame
from sipserver.events import Event
from sipserver.sip.cell import Cell
from sipserver.sip.leg import SipLeg
from sipserver.sip.settings import SipSettings
from sipserver.trunks.settings import TrunkSettings

E = TypeVar("E", bound=Event)
TIMEOUT_S = 5.0


class Listener:
    """Attached to one leg: keeps its events and frames, and lets a test wait for the next of either."""

    def __init__(self, leg: SipLeg, *, echo: bool = False) -> None:
        self.leg = leg
        self.events: list[Event] = []
        self.heard: list[Frame] = []
        self.played: list[Frame] = []
        self._clip = leg.playout.begin("echo") if echo else None
        self._changed = asyncio.Event()
        leg.attach(self._on_event, self._on_media)

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    async def event(self, kind: type[E], count: int = 1, timeout_s: float = TIMEOUT_S) -> E:
        """The count-th event of a kind, once it has happened."""
        await self.until(lambda: len(self.of(kind)) >= count, timeout_s)
        return self.of(kind)[count - 1]

    async def until(self, condition: Any, timeout_s: float = TIMEOUT_S) -> None:
        """Wait until something that follows from events or frames is true."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def ticks(self, count: int) -> None:
        """Wait for so many more frames."""
        target = len(self.heard) + count
        await self.until(lambda: len(self.heard) >= target)

    def loudest(self, last: int = 10) -> int:
        """Peak of what was heard in the last frames."""
        frames = self.heard[-last:]
        return max((int(np.abs(frame.samples.astype(np.int32)).max()) for frame in frames), default=0)

    def _on_event(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    def _on_media(self, heard: Frame, played: Frame) -> None:
        self.heard.append(heard)
        self.played.append(played)
        if self._clip is not None and self.leg.playout.pending_ms < 40:
            self._clip.write_now(heard.samples)
        self._changed.set()


class Rig:
    """legs: those that came in, in order, not attached and not answered."""

    def __init__(self, cell: Cell, legs: asyncio.Queue[SipLeg]) -> None:
        self.cell = cell
        self.legs = legs

    @property
    def port(self) -> int:
        return self.cell.sip_port

    async def leg(self) -> SipLeg:
        async with asyncio.timeout(TIMEOUT_S):
            return await self.legs.get()

    async def answered(self, *, echo: bool = False) -> Listener:
        """Take the next leg and answer it."""
        listener = Listener(await self.leg(), echo=echo)
        await listener.leg.answer()
        return listener


@asynccontextmanager
async def running(
    *, trunks: Sequence[TrunkSettings] = (), passwords: Mapping[str, str] | None = None, **settings: Any
) -> AsyncIterator[Rig]:
    """A cell on a free port with these settings."""
    legs: asyncio.Queue[SipLeg] = asyncio.Queue()
    wanted = SipSettings(**{"port": 0, "rtp_ports": (20_000, 20_199), **settings})
    cell = Cell(wanted, legs.put_nowait, goodbye_s=0.2, trunks=trunks, passwords=passwords or {})
    await cell.start()
    try:
        yield Rig(cell, legs)
    finally:
        await cell.stop()
