"""What the caller hears while somebody is called for them.

Owns ringing, music and the far end's early media until the party answers. Refuses to call and to connect.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sipserver.audio.frame import Samples
from sipserver.calls.call import Call
from sipserver.calls.dialled import connect
from sipserver.calls.music import Music, ringing
from sipserver.calls.party import Party
from sipserver.calls.states import State
from sipserver.errors import CarrierError
from sipserver.events import LegEvent, LegProgress


@asynccontextmanager
async def local(call: Call, samples: Samples) -> AsyncIterator[None]:
    """The caller hears `samples` again and again for the length of an `async with` block, whatever the far end does.

    A call that is not answered gets early media for it. Raises CarrierError when the caller's leg is gone.
    """
    await call.early()
    music = Music(call.leg.playout, samples, "while they wait")
    music.start()
    try:
        yield
    finally:
        await music.close()


@asynccontextmanager
async def passed(call: Call, party: Party) -> AsyncIterator[None]:
    """The caller is told what the far end tells, for the length of an `async with` block: ringing (180, or our own tone
    once the call has sound) and early media. Afterwards a party that answered is still heard.
    """
    progress = _Passed(call, party)
    party.listener = progress.on_event
    task = asyncio.create_task(progress.run(), name=f"progress of {party.name}")
    try:
        yield
    finally:
        party.listener = None
        task.cancel()
        await progress.close()
        await asyncio.wait({task})


class _Passed:
    def __init__(self, call: Call, party: Party) -> None:
        self._call, self._party = call, party
        self._ring = Music(call.leg.playout, ringing(), "ringing")
        self._rings = self._sounds = self._fed = False
        self._changed = asyncio.Event()

    def on_event(self, event: LegEvent) -> None:
        match event:
            case LegProgress(media=True):
                self._sounds = True
            case LegProgress(code=code) if code >= 180:
                self._rings = True
            case _:
                return
        self._changed.set()

    async def run(self) -> None:
        with self._call.edge("progress"):
            try:
                while True:
                    await self._changed.wait()
                    self._changed.clear()
                    await self._tell()
            except CarrierError:
                return  # the caller is gone, and the call ends

    async def _tell(self) -> None:
        call = self._call
        if self._sounds:
            if not self._fed:
                self._fed = True
                self._ring.stop()
                connect(self._party.leg, call.leg, True)
                await call.early()
        elif self._rings:
            if call.state is State.RINGING:
                await call.ring()
            else:
                self._ring.start()

    async def close(self) -> None:
        if self._fed and (self._party.answered_at_ms is None or self._party.gone is not None):
            connect(self._party.leg, self._call.leg, False)
        await self._ring.close()
