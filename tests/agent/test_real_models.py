"""A conversation with the demo's models in real time: it hears the question, answers, and understands good bye."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from sipserver import events
from sipserver.agent.conversation import Conversation
from sipserver.agent.history import History
from sipserver.agent.llm import table as llm_table
from sipserver.agent.options import Engines
from sipserver.agent.settings import LlamaCppSettings
from sipserver.agent.voice import AudioCache, Voice
from sipserver.audio.frame import FRAME_SAMPLES, Frame, Samples
from sipserver.audio.playout import Playout
from sipserver.dialplan.agents import AgentSpec
from sipserver.events import Event
from sipserver.speech import table as speech_table
from sipserver.speech.settings import PiperSettings, WhisperSettings
from tests.fakes.stage import FakeDigits

PROMPT = "You answer the phone for Acme, a bicycle shop. It is open from nine to six. Answer in one short sentence."


@dataclass
class Caller:
    """Says what was put into `speech`, and room noise in between; takes a frame from the playout every 20 ms."""

    playout: Playout
    conversation: Conversation
    speech: list[Samples] = field(default_factory=list)

    async def run(self) -> None:
        noise = np.random.default_rng(1)
        next_s = time.monotonic()
        while True:
            next_s += 0.02
            await asyncio.sleep(max(0.0, next_s - time.monotonic()))
            self.playout.pull()
            said = self.speech.pop(0) if self.speech else noise.integers(-8, 8, FRAME_SAMPLES).astype(np.int16)
            self.conversation.hear(Frame(said, time.monotonic_ns()))
            self.playout.tick()


@pytest.fixture
async def engines(tmp_path: Path) -> AsyncIterator[Engines]:
    async with AsyncExitStack() as stack:
        vad = await speech_table.load_vad(tmp_path)
        stack.push_async_callback(vad.close)
        stt = await speech_table.load_stt("whisper", WhisperSettings(), tmp_path)
        stack.push_async_callback(stt.close)
        tts = await speech_table.load_tts("piper", PiperSettings(), tmp_path)
        stack.push_async_callback(tts.close)
        llms = await llm_table.load({"local": LlamaCppSettings(first_token_timeout_s=30)}, ["local"], tmp_path)
        stack.push_async_callback(llms["local"].close)
        await llms["local"].warm(History(PROMPT).prompt())
        yield Engines(vad, {"whisper": stt}, {"piper": tts}, llms)


@pytest.mark.models
async def test_a_question_is_answered_and_good_bye_ends_it(engines: Engines) -> None:
    happened: list[Event] = []
    told: asyncio.Queue[events.Spoken | events.TurnLatency] = asyncio.Queue()

    def emit(event: Event) -> None:
        happened.append(event)
        if isinstance(event, events.Spoken | events.TurnLatency):
            told.put_nowait(event)

    async def until(kind: type[Event]) -> None:
        while not isinstance(await told.get(), kind):
            pass

    playout = Playout()
    spec = AgentSpec(prompt=PROMPT, greeting="Hello, this is Acme.")
    voice = Voice(engines.tts, emit, AudioCache())
    conversation = Conversation(spec, engines, playout, emit, FakeDigits(), {}, voice)
    caller = Caller(playout, conversation)

    async def say(text: str) -> None:
        sound = np.concatenate([chunk async for chunk in engines.tts["piper"].synthesise(text)])
        caller.speech += np.split(sound[: len(sound) // FRAME_SAMPLES * FRAME_SAMPLES], len(sound) // FRAME_SAMPLES)

    async with asyncio.TaskGroup() as group:
        clock = group.create_task(caller.run())
        talking = group.create_task(conversation.run())
        async with asyncio.timeout(90):
            await until(events.Spoken)
            await say("When are you open on Tuesday?")
            await until(events.TurnLatency)  # a slow model's answer comes behind "One moment, please."
            await until(events.Spoken)
            await say("Thank you, good bye.")
            outcome = await talking
        clock.cancel()

    assert outcome.kind == "done"
    finals = [event.text for event in happened if isinstance(event, events.Transcript) and event.final]
    assert "open on tuesday" in finals[0].lower()
    assert "bye" in finals[-1].lower()
    latencies = [event for event in happened if isinstance(event, events.TurnLatency)]
    assert latencies
    assert latencies[0].speculative
    assert not [event for event in happened if isinstance(event, (events.ProviderFailed, events.Fault))]
