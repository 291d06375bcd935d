"""A conversation on stage: fake engines, a telephone whose media clock runs in virtual time, and what happened when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from sipserver.agent.conversation import Conversation
from sipserver.agent.options import Engines, Fetch, Outcome
from sipserver.agent.voice import AudioCache, Voice
from sipserver.audio.frame import FRAME_MS, Frame
from sipserver.audio.playout import Playout
from sipserver.dialplan.agents import AgentSpec
from sipserver.events import Event
from tests.fakes.engines import LOUD, FakeLlm, FakeStt, FakeTts, FakeVad, loud
from tests.fakes.virtual_time import now_ns

Kind = TypeVar("Kind", bound=Event)


class FakeDigits:
    """Digits that come after a while."""

    def __init__(self, digits: str = "", after_s: float = 0.5) -> None:
        self.digits, self.after_s = digits, after_s
        self.asked: list[tuple[int, float]] = []

    async def collect(self, count: int, timeout_s: float) -> str:
        self.asked.append((count, timeout_s))
        await asyncio.sleep(min(self.after_s, timeout_s))
        return self.digits[:count]


class Telephone:
    """The far end and the media clock: takes and gives a frame every 20 ms. `stuck`: the clock takes none."""

    def __init__(self, playout: Playout) -> None:
        self.playout = playout
        self.hear: Callable[[Frame], None] = lambda _: None
        self.sounds: list[bool] = []
        """For every 20 ms since the start: did sound leave?"""
        self.stuck = False
        self._voice_ms = 0

    async def run(self) -> None:
        number = 0
        start_s = asyncio.get_running_loop().time()
        while True:
            number += 1
            await asyncio.sleep(start_s + number * FRAME_MS / 1000 - asyncio.get_running_loop().time())
            taken = None if self.stuck else self.playout.pull()
            self.sounds.append(taken is not None and int(np.frombuffer(taken, np.int16).max()) > LOUD // 2)
            said = loud(FRAME_MS) if self._voice_ms > 0 else np.zeros(320, np.int16)
            self._voice_ms -= FRAME_MS if self._voice_ms > 0 else 0
            self.hear(Frame(said, now_ns()))
            self.playout.tick()

    async def speak(self, milliseconds: int) -> None:
        """The caller makes a sound; returns when it is over."""
        self._voice_ms = milliseconds
        await asyncio.sleep(milliseconds / 1000)

    def silent_since_ms(self) -> int:
        """How long nothing left until now."""
        quiet = 0
        for sound in reversed(self.sounds):
            if sound:
                break
            quiet += FRAME_MS
        return quiet


class Stage:
    """`async with Stage(...) as stage:` runs the conversation; leaving cancels it and checks what it leaves."""

    def __init__(
        self,
        *,
        stt: list[FakeStt] | None = None,
        tts: list[FakeTts] | None = None,
        llm: list[FakeLlm] | None = None,
        digits: FakeDigits | None = None,
        variables: dict[str, str] | None = None,
        cache: AudioCache | None = None,
        fetch: Fetch | None = None,
        **options: Any,
    ) -> None:
        self.stt = stt or [FakeStt()]
        self.tts = tts or [FakeTts()]
        self.llm = llm or [FakeLlm()]
        self.digits = digits or FakeDigits()
        self.vad = FakeVad()
        self.playout = Playout()
        self.phone = Telephone(self.playout)
        self.events: list[tuple[int, Event]] = []
        self.options = AgentSpec.model_validate(
            {
                "prompt": "You answer the phone.",
                "stt": tuple(engine.name for engine in self.stt),
                "llm": {"use": self.llm[0].name, "fallback": tuple(engine.name for engine in self.llm[1:])},
                "tts": {"use": self.tts[0].name, "fallback": tuple(engine.name for engine in self.tts[1:])},
                **options,
            }
        )
        self._variables = variables or {}
        self._cache = cache or AudioCache()
        self._fetch = fetch
        self._waiting: list[tuple[Callable[[Event], bool], asyncio.Future[Event]]] = []

    async def __aenter__(self) -> Stage:
        engines = Engines(
            self.vad,
            {engine.name: engine for engine in self.stt},
            {engine.name: engine for engine in self.tts},
            {engine.name: engine for engine in self.llm},
        )
        voice = Voice(engines.tts, self._emit, self._cache, clock=now_ns)
        self.conversation = Conversation(
            options=self.options,
            engines=engines,
            playout=self.playout,
            emit=self._emit,
            digits=self.digits,
            variables=self._variables,
            voice=voice,
            fetch=self._fetch,
            clock=now_ns,
        )
        self.phone.hear = self.conversation.hear
        self._phone_task = asyncio.create_task(self.phone.run(), name="telephone")
        self.task = asyncio.create_task(self.conversation.run(), name="conversation")
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.wait((self.task,))
        assert self.playout.pending_ms == 0, "the playout was not flushed"
        assert all(stream.closed for stream in self.vad.streams), "a VAD stream was left open"
        self._phone_task.cancel()
        await asyncio.wait((self._phone_task,))

    async def outcome(self) -> Outcome:
        async with asyncio.timeout(1000):
            return await asyncio.shield(self.task)

    def all(self, kind: type[Kind]) -> list[Kind]:
        return [event for _, event in self.events if isinstance(event, kind)]

    def at_ms(self, event: Event) -> int:
        return next(at_ms for at_ms, seen in self.events if seen is event)

    async def next(self, kind: type[Kind], test: Callable[[Kind], bool] = lambda _: True) -> Kind:
        """Wait for the next event of a kind from now on."""
        future: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        self._waiting.append((lambda event: isinstance(event, kind) and test(event), future))
        async with asyncio.timeout(60):
            event = await future
        assert isinstance(event, kind)
        return event

    async def sleep(self, milliseconds: int) -> None:
        await asyncio.sleep(milliseconds / 1000)

    def _emit(self, event: Event) -> None:
        self.events.append((now_ns() // 1_000_000, event))
        for test, future in self._waiting:
            if not future.done() and test(event):
                future.set_result(event)
        self._waiting = [(test, future) for test, future in self._waiting if not future.done()]
