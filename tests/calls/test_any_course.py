"""Whatever happens to a call in whatever order: it ends once, its record is closed, and nothing is left."""

from __future__ import annotations

import asyncio
import random
import wave

import pytest

from sipserver import events
from sipserver.agent.options import Outcome
from sipserver.calls.call import Call
from sipserver.calls.states import EndReason
from tests.calls.conftest import Stage
from tests.fakes.leg import FakeLeg, breathe, level

FLOWS = """
  main:
    - when: {var: from, like: "*0", then: straight}
    - when: {var: from, like: "*1", then: early}
    - when: {var: from, like: "*2", then: patient}
    - when: {var: from, like: "*3", then: refused, else: menu}
  straight: [answer, record, {say: One two three four.}, {record: pause}, {wait: 0.01}, {record: resume}, {goto: menu}]
  early: [early, {say: Please wait.}, {wait: 0.01}, answer, {echo: 0.02}, {goto: desk}]
  patient: [{wait: 0.02}, {record: {stereo: false}}, {goto: menu}]
  refused: [{wait: 0.01}, {hangup: 486}]
  menu:
    - collect: {say: Press one., digits: 2, timeout_s: 0.02, between_s: 0.01, tries: 2,
                on: {"1": desk, "22": echo, none: desk, other: menu}}
  desk: [{agent: {use: desk, on: {failed: menu, done: echo, transfer: end, silence: end}}}]
  echo: [record, {echo: 0.03}, {record: stop}, {say: "Good bye {from}."}]
"""

KINDS = ["done", "failed", "transfer", "silence", "max_duration"]


def happen(chance: random.Random, stage: Stage, leg: FakeLeg, call: Call) -> None:
    """Something that could come at any moment."""
    match chance.randrange(12):
        case 0 | 1 | 2:
            leg.press(chance.choice("0123456789*#"))
        case 3:
            leg.tell(events.LegHeld())
        case 4:
            leg.tell(events.LegResumed())
        case 5:
            leg.tell(events.MediaStalled(silent_ms=chance.choice([5, 29_990, 40_000])))
        case 6:
            leg.tell(events.MediaRecovered(silent_ms=10))
        case 7:
            stage.tts.broken = chance.random() < 0.3
        case 8 | 9:
            for talk in stage.converse.talks:
                if not talk.outcome.done():
                    talk.outcome.set_result(Outcome(chance.choice(KINDS)))  # type: ignore[arg-type]
        case 10 if chance.random() < 0.2:
            leg.peer_leaves()
        case 11 if chance.random() < 0.2:
            call.end(chance.choice([EndReason.DRAIN, EndReason.LIMIT]))
        case _:
            pass


@pytest.mark.parametrize("seed", range(12))
async def test_it_ends_once_and_leaves_nothing(stage: Stage, seed: int) -> None:
    chance = random.Random(seed)
    stage.plan(FLOWS)
    registry = stage.registry()
    before = asyncio.all_tasks()
    calls = []
    for number in range(8):
        leg = FakeLeg()
        leg.offer = type(leg.offer)(from_uri=f"sip:{number % 5}@example.org")
        leg.slow_answer = chance.random() < 0.2
        calls.append((leg, registry.begin(leg)))
    async with asyncio.timeout(20):
        for _ in range(150):
            leg, call = chance.choice(calls)
            if not leg.gone:
                happen(chance, stage, leg, call)
            if chance.random() < 0.3:
                leg.go_on.set()
            for leg, _call in calls:
                leg.tick_now(level(chance.randrange(100)))
            await breathe(chance.randrange(4))
            await asyncio.sleep(0.001)
        await registry.drain(0)
    assert not registry.calls
    await breathe()
    assert asyncio.all_tasks() == before
    assert EndReason.INTERNAL_ERROR not in [facts.get("reason") for _, facts in stage.records.calls]

    for leg, call in calls:
        assert leg.gone
        told = [name for name, facts in stage.records.calls if facts["call_id"] == call.id]
        assert (told[0], told[-1], told.count("started"), told.count("ended")) == ("started", "ended", 1, 1)
        kinds = [stamped.event.kind for stamped in stage.records.stamped if stamped.call_id == call.id]
        assert kinds[0] == "call.started"
        assert kinds[-1] == "call.ended"
        assert kinds.count("step.entered") == kinds.count("step.left")
        assert kinds.count("recording.started") == kinds.count("recording.stopped")
    for path in stage.recorder.folder.rglob("*.wav"):
        with wave.open(str(path)) as file:
            assert file.getnframes() % 320 == 0
            assert path.stat().st_size == 44 + file.getnframes() * file.getnchannels() * 2
