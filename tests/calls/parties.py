"""Calls with further parties, in virtual time: a stage whose media clock runs by itself, and who hears whom."""

from __future__ import annotations

import asyncio
import wave
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from sipserver.audio.frame import FRAME_SAMPLES, Samples
from sipserver.calls import recording
from sipserver.calls.call import Call
from sipserver.calls.outbound import Way
from sipserver.errors import CarrierError
from sipserver.events import Event, PartyEnded, ReferProgress, StepEntered, StepLeft, TransferEnded
from tests.calls.conftest import Stage
from tests.fakes.leg import FakeLeg, FakeOffer, breathe
from tests.fakes.outbound import FakeOutbound, PlacedLeg
from tests.fakes.virtual_time import now_ns

FRAME_S = 0.02


class Caller(FakeLeg):
    """slow_refer: what comes of a REFER is told by the test, by `referred`."""

    def __init__(self) -> None:
        super().__init__(FakeOffer(trunk="carrier"), clock=now_ns)
        self.slow_refer = False
        self._referred: asyncio.Future[int] | None = None

    async def refer(self, to_uri: str, *, replaces: FakeLeg | None = None) -> int:
        if not self.slow_refer:
            return await super().refer(to_uri, replaces=replaces)
        self._do(f"refer {to_uri}{' replaces' if replaces is not None else ''}")
        self._referred = asyncio.get_running_loop().create_future()
        return await self._referred

    @property
    def refers(self) -> bool:
        """A REFER waits for its outcome."""
        return self._referred is not None and not self._referred.done()

    def referred(self, answer: int | Exception) -> None:
        """The last NOTIFY, or a refusal of the REFER."""
        assert self._referred is not None
        if isinstance(answer, Exception):
            self._referred.set_exception(answer)
        else:
            self.tell(ReferProgress(code=answer, final=True))
            self._referred.set_result(answer)

    def peer_leaves(self) -> None:
        super().peer_leaves()
        if self.refers:
            self.referred(CarrierError("the leg is gone", 200))


class Carrier(FakeOutbound):
    """script: what the far end does as soon as the INVITE is out. keeps_time: it cancels what nobody answers."""

    def __init__(self, *trunks: str) -> None:
        super().__init__(*trunks)
        self.script: Callable[[PlacedLeg], object] = lambda _: None
        self.keeps_time = True

    async def dial(self, way: Way, *, timeout_s: float) -> PlacedLeg:
        leg = await super().dial(way, timeout_s=timeout_s if self.keeps_time else timeout_s + 3600)
        leg.clock = now_ns
        self.script(leg)
        return leg


class ThreeParties(Stage):
    """One process, one caller, and whoever is called. `main` is the flow that runs."""

    def __init__(self, folder: Path, *trunks: str) -> None:
        super().__init__(folder)
        self.clock = now_ns
        self.placed = self.outbound = Carrier(*trunks)
        self.leg = Caller()
        self.live: Call | None = None
        self.lost: set[FakeLeg] = set()
        """Legs whose next ticks are lost."""
        self._said: tuple[Samples | None, Samples | None] = (None, None)
        self._ticked = 0
        self._tick = asyncio.Event()

    @property
    def alive(self) -> Call:
        assert self.live is not None
        return self.live

    def begin(self, flows: str, **settings: Any) -> Call:
        _, self.live = self.call(flows, self.leg, **settings)
        return self.live

    async def party(self, number: int = 1) -> PlacedLeg:
        """The leg of the number-th attempt, once its INVITE is out."""
        return await self.placed.leg(number)

    async def over(self) -> str:
        """Let time pass until no call lives; the reason in the record."""
        await self.happens(lambda: not self.lives())
        return self.records.reason

    async def happens(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(1000):
            while not condition():
                await self._tick.wait()

    async def tick(self, count: int, caller: Samples | None = None, party: Samples | None = None) -> None:
        """Media ticks, in which caller and party say this (silence otherwise)."""
        self._said = (caller, party)
        number = self._ticked + count
        await self.happens(lambda: self._ticked >= number)
        self._said = (None, None)

    def said(self) -> tuple[Samples | None, Samples | None]:
        self._ticked += 1
        return self._said

    def told(self) -> None:
        """A media tick is over."""
        self._tick.set()
        self._tick = asyncio.Event()

    def sound(self, name: str, value: int, *, frames: int) -> None:
        """A sound file all of whose samples have one value."""
        with wave.open(str(self.folder / name), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16_000)
            file.writeframes(np.full(frames * FRAME_SAMPLES, value, "<i2").tobytes())

    def flows(self) -> list[str]:
        """Flows in the order in which they were entered."""
        entered = [step.flow for step in self.records.of(StepEntered)]
        return [flow for index, flow in enumerate(entered) if index == 0 or entered[index - 1] != flow]

    def lives(self) -> bool:
        """Whether a call lives."""
        return any(registry.calls for registry in self.registries)

    def left(self) -> list[tuple[str, str]]:
        return [(left.step, left.outcome) for left in self.records.of(StepLeft)]

    def parted(self) -> list[tuple[str, str, int, str]]:
        """(party, outcome, code, by) of every party."""
        return [(end.party, end.outcome, end.code, end.by) for end in self.records.of(PartyEnded)]

    def transfers(self) -> list[tuple[str, str, str, int]]:
        """(mode, outcome, how, code) of every transfer that ended."""
        return [(end.mode, end.outcome, end.how, end.code) for end in self.records.of(TransferEnded)]

    def of_leg(self, leg: str) -> list[Event]:
        return [stamped.event for stamped in self.records.stamped if getattr(stamped.event, "leg", None) == leg]


def hear_each_other(one: FakeLeg, other: FakeLeg) -> bool:
    return other in one.feeds and one in other.feeds


def apart(one: FakeLeg, other: FakeLeg) -> bool:
    return other not in one.feeds and one not in other.feeds


async def _media(three: ThreeParties) -> None:
    while True:
        await asyncio.sleep(FRAME_S)
        caller, party = three.said()
        for leg, samples in ((three.leg, caller), *((placed, party) for placed in three.placed.legs)):
            if leg not in three.lost:
                leg.tick_now(samples)
        three.told()


@asynccontextmanager
async def three_parties(folder: Path, *trunks: str) -> AsyncIterator[ThreeParties]:
    """For tests in virtual time. Leaving it checks that every leg is gone, nothing is played and no task is left."""
    three = ThreeParties(folder, *trunks)
    three.recorder.open()
    clock = asyncio.create_task(_media(three), name="media clock")
    waits = mock.patch.object(recording, "CLOSE_S", 1000.0)  # virtual seconds are too short for a disk
    waits.start()
    try:
        yield three
        for registry in three.registries:
            await registry.drain(0)
        await breathe()
        for leg in (three.leg, *three.placed.legs):
            assert leg.gone, f"{leg.offer.to_uri} was left behind"
            assert not leg.playout.pending_ms
        assert all(apart(three.leg, leg) or leg.gone for leg in three.placed.legs)
    finally:
        await three.close()
        waits.stop()
        clock.cancel()
        await asyncio.wait({clock})
