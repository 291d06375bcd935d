"""A stage for calls: a registry with a fake leg, a fake record, one fake voice, and dialplans written in the test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sipserver import yaml_file
from sipserver.agent.options import Engines
from sipserver.agent.voice import AudioCache
from sipserver.audio.frame import FRAME_SAMPLES, Samples
from sipserver.calls import call as call_module
from sipserver.calls.bots import Bots
from sipserver.calls.call import Call
from sipserver.calls.conference import Rooms
from sipserver.calls.deciding import Decides
from sipserver.calls.limits import Allowances, Limits
from sipserver.calls.outbound import Outbound
from sipserver.calls.record import RecordSink
from sipserver.calls.recording import Recorder
from sipserver.calls.registry import Registry
from sipserver.calls.scribe import Scribe
from sipserver.calls.services import LimitsOf, Services
from sipserver.calls.settings import CallSettings
from sipserver.dialplan import load
from sipserver.dialplan.book import Book
from sipserver.errors import DialplanError, ProviderRejected
from sipserver.events import Stamped
from sipserver.speech.contract import Stt, TtsCapabilities
from tests.fakes.leg import FakeLeg, breathe
from tests.fakes.records import FakeRecords
from tests.fakes.talk import FakeConverse

SPOKEN = 5_000
"""Level of everything that the fake voice says."""


class FakeTts:
    """Every text is one frame a word. broken: refuses."""

    name = "fake"
    capabilities = TtsCapabilities(languages=None, voices=None, streaming=True, local=True)

    def __init__(self) -> None:
        self.broken = False
        self.texts: list[str] = []

    async def synthesise(self, text: str, *, voice: str = "", language: str = "en") -> AsyncIterator[Samples]:
        self.texts.append(text)
        if self.broken:
            raise ProviderRejected("fake", "broken on purpose")
        yield np.full(FRAME_SAMPLES * len(text.split()), SPOKEN, np.int16)

    async def close(self) -> None:
        pass


class Stage:
    """One process's worth of calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records = FakeRecords()
        self.converse: Any = FakeConverse()
        self.tts = FakeTts()
        self.recorder = Recorder(folder / "recordings")
        self.desk = "{prompt: 'You talk to {from}.'}"
        self.listened: list[Stamped] = []
        self.book = Book()
        no_engine: Any = None
        self.stt: dict[str, Stt] = {}
        self.engines = Engines(vad=no_engine, stt=self.stt, tts={"fake": self.tts}, llm={})
        self.clock: Callable[[], int] = time.monotonic_ns
        self.limits: Limits | None = None
        self.limits_of: LimitsOf = lambda tenant, trunk: {}
        self.allowances: Allowances | None = None
        self.load = 0.0
        self.head = ""
        """Further keys at the top of the dialplan."""
        self.outbound: Outbound | None = None
        self.bots: Bots | None = None
        self.decides: Decides | None = None
        self.rooms = Rooms()
        self.scribe = Scribe()
        self.registries: list[Registry] = []

    def registry(self, records: RecordSink | None = None, **settings: Any) -> Registry:
        services = Services(
            settings=CallSettings(recordings=self.recorder.folder, **settings),
            engines=self.engines,
            clock=self.clock,
            speech_cache=AudioCache(),
            converse=self.converse,
            book=lambda: self.book,
            recorder=self.recorder,
            records=records or self.records,
            listeners=(self.listened.append,),
            limits=self.limits,
            limits_of=self.limits_of,
            allowances=self.allowances,
            load=lambda: self.load,
            outbound=self.outbound,
            bots=self.bots,
            decides=self.decides,
            rooms=self.rooms,
            scribe=self.scribe,
        )
        self.registries.append(Registry(services))
        return self.registries[-1]

    def plan(self, flows: str, name: str = "demo.yaml") -> None:
        """Load the flows (YAML below `flows:`); calls to anybody run the flow `main`."""
        text = f"tenant: acme\n{self.head}\nagents:\n  desk: {self.desk}\nflows:\n{flows}\n"
        text += "routes:\n  - match: {to: '*'}\n    flow: main\n"
        report = load.check_document(yaml_file.parse_text(text, self.folder / name, DialplanError))
        assert report.plan is not None, report.errors
        self.book = Book((report.plan,))

    def call(self, flows: str, leg: FakeLeg | None = None, **settings: Any) -> tuple[FakeLeg, Call]:
        """A call that runs the flow `main`; it begins to run at the next await."""
        self.plan(flows)
        leg = leg or FakeLeg()
        return leg, self.registry(**settings).begin(leg)

    async def ended(self, leg: FakeLeg) -> str:
        """Let time and media pass until no call lives; the reason in the record."""
        async with asyncio.timeout(20):
            while any(registry.calls for registry in self.registries):
                leg.tick_now()
                await breathe()
                await asyncio.sleep(0.0005)
        return self.records.reason

    async def until(self, condition: Callable[[], Any], leg: FakeLeg) -> None:
        """Let time and media pass until something holds."""
        async with asyncio.timeout(20):
            while not condition():
                leg.tick_now()
                await breathe()
                await asyncio.sleep(0.0005)

    async def hang_up(self) -> None:
        for registry in self.registries:
            await registry.drain(0)

    async def close(self) -> None:
        await self.hang_up()
        await self.scribe.close()
        await self.recorder.close()


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    monkeypatch.setattr(call_module, "TAIL_S", 0.0)
    stage = Stage(tmp_path)
    stage.recorder.open()
    yield stage
    await stage.close()


def outcomes(stage: Stage) -> list[tuple[str, str]]:
    """(step, outcome) of all steps that were left."""
    from sipserver.events import StepLeft

    return [(left.step, left.outcome) for left in stage.records.of(StepLeft)]
