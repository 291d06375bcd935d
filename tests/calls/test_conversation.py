"""The agent's own conversation in a call: what wires the two together holds, in virtual time."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from sipserver.agent.conversation import Conversation
from sipserver.agent.options import Engines
from sipserver.calls.call import Call
from sipserver.calls.services import Converse
from sipserver.events import Spoken, Transcript, TurnEnded, TurnLatency
from tests.calls.conftest import Stage, outcomes
from tests.fakes import engines
from tests.fakes.leg import FakeLeg
from tests.fakes.virtual_time import now_ns, virtual

FLOW = """
  main: [answer, {agent: {use: desk, on: {failed: bad, done: good, transfer: person}}}]
  good: [hangup]
  bad: [hangup]
  person: [hangup]"""


class Line:
    """A caller on the telephone, and the media clock."""

    def __init__(self, folder: Path, llm: engines.FakeLlm, stt: engines.FakeStt) -> None:
        self.stage = Stage(folder)
        self.stage.clock = now_ns
        self.vad = engines.FakeVad()
        self.stage.engines = Engines(
            vad=self.vad, stt={"whisper": stt}, tts={"piper": engines.FakeTts()}, llm={"local": llm}
        )
        converse: Converse = partial(Conversation, clock=now_ns)
        self.stage.converse = converse
        self.stage.desk = "{prompt: 'You talk to {from}.', greeting: 'Hello {from}.'}"
        self.leg = FakeLeg(clock=now_ns)
        self.speaking = False
        self._clock = asyncio.create_task(self._tick(), name="media clock")

    def call(self) -> Call:
        return self.stage.call(FLOW, self.leg)[1]

    async def speak(self, seconds: float) -> None:
        self.speaking = True
        await asyncio.sleep(seconds)
        self.speaking = False

    async def heard(self, count: int) -> None:
        """Wait until the agent has said so many things."""
        while len(self.stage.records.of(Spoken)) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    async def over(self) -> str:
        (registry,) = self.stage.registries
        while registry.calls:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        self._clock.cancel()
        await asyncio.wait({self._clock})
        return self.stage.records.reason

    async def _tick(self) -> None:
        while True:
            self.leg.tick_now(engines.loud(20) if self.speaking else None)
            await asyncio.sleep(0.02)


@virtual
async def test_greeting_question_answer_and_the_end(tmp_path: Path) -> None:
    llm = engines.FakeLlm(["It is noon."], [engines.call("end_call")])
    line = Line(tmp_path, llm, engines.FakeStt("what time is it", "thanks"))
    line.call()
    await line.heard(1)
    await line.speak(1.0)
    await line.heard(2)
    await line.speak(0.6)
    assert await line.over() == "dialplan_hangup"
    records = line.stage.records
    assert [spoken.heard for spoken in records.of(Spoken)][:2] == ["Hello alice.", "It is noon."]
    assert next(text.text for text in records.of(Transcript) if text.final) == "what time is it"
    assert records.of(TurnEnded)
    assert records.of(TurnLatency)
    assert llm.asked[0][0][0].content.startswith("You talk to alice.")
    assert outcomes(line.stage) == [("answer", "done"), ("agent", "done"), ("hangup", "done")]


@virtual
async def test_the_caller_hangs_up_while_the_agent_speaks(tmp_path: Path) -> None:
    line = Line(tmp_path, engines.FakeLlm(), engines.FakeStt())
    line.call()
    while not line.leg.playout.pending_ms:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.2)
    line.leg.peer_leaves()
    assert await line.over() == "caller_hangup"
    (greeting,) = line.stage.records.of(Spoken)
    assert not greeting.complete
    assert 0 < greeting.heard_ms < greeting.audio_ms
    assert all(stream.closed for stream in line.vad.streams)
    assert outcomes(line.stage) == [("answer", "done"), ("agent", "cancelled")]


@virtual
async def test_digits_that_nobody_collects_are_the_callers_turn(tmp_path: Path) -> None:
    llm = engines.FakeLlm(["Thank you."])
    line = Line(tmp_path, llm, engines.FakeStt())
    line.call()
    await line.heard(1)
    line.leg.press("42")
    await line.heard(2)
    assert "4 2" in llm.asked[0][0][-1].content or "42" in llm.asked[0][0][-1].content
    line.leg.peer_leaves()
    assert await line.over() == "caller_hangup"


@virtual
async def test_digits_that_the_model_asks_for(tmp_path: Path) -> None:
    llm = engines.FakeLlm([engines.call("collect_digits", count=4)], ["Thank you."])
    line = Line(tmp_path, llm, engines.FakeStt("I have a number"))
    line.stage.desk = "{prompt: Be nice., greeting: Hello., tools: [collect_digits]}"
    call = line.call()
    await line.heard(1)
    await line.speak(1.0)
    while not llm.asked:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    await asyncio.sleep(1.0)
    for digit in "4711":
        line.leg.press(digit)
        await asyncio.sleep(0.1)
    await line.heard(2)
    assert "4711" in llm.asked[1][0][-1].content.replace(" ", "")
    assert not call.digits
    line.leg.peer_leaves()
    await line.over()
