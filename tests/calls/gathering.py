"""Several callers of one process, in virtual time: a stage whose media clock runs by itself, and who hears whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from sipserver import yaml_file
from sipserver.audio import sound_file
from sipserver.audio.frame import Samples
from sipserver.calls import music
from sipserver.calls.call import Call
from sipserver.calls.registry import Registry
from sipserver.dialplan import load
from sipserver.dialplan.book import Book
from sipserver.errors import DialplanError
from sipserver.events import Event, StepLeft
from tests.calls.conftest import Stage
from tests.fakes.leg import FakeLeg, FakeOffer, breathe
from tests.fakes.outbound import FakeOutbound
from tests.fakes.recorder import InstantRecorder
from tests.fakes.virtual_time import now_ns

FRAME_S = 0.02
Kind = TypeVar("Kind", bound=Event)


@dataclass(eq=False)
class Caller:
    """said: what the microphone gives in every tick; None: silence."""

    stage: Gathering
    leg: FakeLeg
    call: Call
    said: Samples | None = None

    def of(self, kind: type[Kind]) -> list[Kind]:
        """The events of a kind in this call's record."""
        stamped = self.stage.records.stamped
        return [each.event for each in stamped if each.call_id == self.call.id and isinstance(each.event, kind)]

    @property
    def left(self) -> list[tuple[str, str]]:
        """(step, outcome) of every step that was left."""
        return [(left.step, left.outcome) for left in self.of(StepLeft)]

    @property
    def hears(self) -> set[str]:
        """The users of the callers whom this one hears."""
        return {each.user for each in self.stage.callers if self.leg in each.leg.feeds}

    @property
    def user(self) -> str:
        return self.leg.offer.from_user

    def heard_sound(self) -> Samples:
        """Everything that we played to this caller, without silence."""
        loud = [samples for samples in self.leg.played if samples.any()]
        return np.concatenate(loud) if loud else np.zeros(0, np.int16)

    def hangs_up(self) -> None:
        self.leg.peer_leaves()


class Gathering(Stage):
    """Whoever calls `user` runs the flow of that name."""

    def __init__(self, folder: Path, *trunks: str) -> None:
        super().__init__(folder)
        self.clock = now_ns
        self.recorder = InstantRecorder(folder / "recordings")
        self.placed = FakeOutbound(*trunks)
        self.outbound = self.placed
        self.callers: list[Caller] = []
        self._registry: Registry | None = None

    @property
    def all(self) -> Registry:
        if self._registry is None:
            self._registry = self.registry()
        return self._registry

    def plans(self, flows: str, head: str = "") -> None:
        """flows: YAML below `flows:`, with one route for each of them."""
        names = [line.strip().rstrip(":").partition(":")[0] for line in flows.splitlines() if _is_flow(line)]
        routes = "".join(f"  - match: {{to: {name}}}\n    flow: {name}\n" for name in names)
        text = f"tenant: acme\n{head}\nflows:\n{flows}\nroutes:\n{routes}"
        report = load.check_document(yaml_file.parse_text(text, self.folder / "demo.yaml", DialplanError))
        assert report.plan is not None, report.errors
        self.book = Book((report.plan,))

    def calls(self, to: str, user: str = "", leg: FakeLeg | None = None) -> Caller:
        """Somebody calls; their call begins to run at the next await."""
        user = user or f"caller{len(self.callers) + 1}"
        offer = FakeOffer(to_uri=f"sip:{to}@127.0.0.1", to_user=to, from_uri=f"sip:{user}@example.org", from_user=user)
        if leg is None:
            leg = FakeLeg(clock=now_ns)
        leg.offer = offer
        self.callers.append(Caller(self, leg, self.all.begin(leg)))
        return self.callers[-1]

    async def happens(self, condition: Callable[[], Any], within_s: float = 1000) -> None:
        async with asyncio.timeout(within_s):
            while True:
                if condition():
                    return
                await asyncio.sleep(FRAME_S)

    async def over(self) -> None:
        """Let time pass until no call lives."""
        await self.happens(lambda: not self.all.calls)


def _is_flow(line: str) -> bool:
    return line.startswith("  ") and not line.startswith("   ") and ":" in line


async def _media(stage: Gathering) -> None:
    while True:
        await asyncio.sleep(FRAME_S)
        for caller in stage.callers:
            caller.leg.tick_now(caller.said)
        for leg in stage.placed.legs:
            leg.tick_now()


@asynccontextmanager
async def gathering(folder: Path, *trunks: str) -> AsyncIterator[Gathering]:
    """For tests in virtual time. Leaving it checks that every leg is gone and fed by nobody, and that nothing plays."""
    stage = Gathering(folder, *trunks)
    stage.recorder.open()
    clock = asyncio.create_task(_media(stage), name="media clock")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(music, "read", _read_at_once)
            yield stage
        await stage.all.drain(0)
        await breathe()
        for leg in (*(caller.leg for caller in stage.callers), *stage.placed.legs):
            assert leg.gone, f"{leg.offer.to_uri} was left behind"
            assert not leg.playout.pending_ms
            assert not leg.feeds
        assert not list(stage.all.services.rooms)
    finally:
        await stage.close()
        clock.cancel()
        await asyncio.wait({clock})


async def _read_at_once(path: Path) -> Samples:
    """Virtual time does not wait for threads."""
    return sound_file.read(path)
