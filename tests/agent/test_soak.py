"""Callers and engines that do anything at any moment: a conversation always comes to an end and leaves nothing."""

from __future__ import annotations

import random
from typing import Any

import pytest

from sipserver import events
from sipserver.errors import ProviderBusy, ProviderTimeout
from tests.fakes.engines import FakeLlm, FakeStt, FakeTts, Part, call
from tests.fakes.stage import FakeDigits, Stage
from tests.fakes.virtual_time import virtual

TEXTS: list[str | Exception] = [
    "hello",
    "",
    "mhm",
    "what time is it",
    "stop",
    "okay yeah",
    "I want a table",
    ProviderBusy("stt", "queue full"),
]


def answers(dice: random.Random) -> list[list[Part]]:
    words = ["Yes, of course.", "One, two. Three, four. Five.", "A somewhat longer answer that goes on and on. And on."]
    made: list[list[Part]] = []
    for _ in range(12):
        answer: list[Part] = [dice.choice(words)]
        if dice.random() < 0.3:
            answer.insert(0, dice.choice([0.3, 1.0, 2.5]))
        if dice.random() < 0.2:
            answer.append(call("collect_digits", count=2))
        if dice.random() < 0.1:
            answer.append(ProviderTimeout("llm", "gone"))
        made.append(answer)
    return made


def engines(dice: random.Random) -> dict[str, Any]:
    texts = [dice.choice(TEXTS) for _ in range(40)]
    return {
        "stt": [
            FakeStt(*texts, delay_s=dice.choice([0.03, 0.1, 0.5, 1.2])),
            FakeStt("fallback", name="stt2", delay_s=0.2),
        ],
        "llm": [FakeLlm(*answers(dice)), FakeLlm(["I am the second."], name="llm2")],
        "tts": [FakeTts(delay_s=dice.choice([0.02, 0.3])), FakeTts(name="tts2", languages=None)],
    }


async def act(stage: Stage, dice: random.Random) -> None:
    match dice.choice(["word", "word", "speech", "click", "wait", "wait", "digit", "stall"]):
        case "word":
            await stage.phone.speak(dice.randint(100, 400))
        case "speech":
            await stage.phone.speak(dice.randint(400, 3000))
        case "click":
            await stage.phone.speak(40)
        case "wait":
            await stage.sleep(dice.randint(10, 3000))
        case "digit":
            stage.conversation.digit(dice.choice("0123456789*#"))
        case "stall":
            stage.phone.stuck = True
            await stage.sleep(dice.randint(100, 2000))
            stage.phone.stuck = False
    await stage.sleep(dice.randint(20, 700))


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_it_ends(seed: int) -> None:
    dice = random.Random(seed)

    @virtual
    async def scene() -> None:
        turn = {
            "barge_in": dice.choice(["pause", "pause", "off"]),
            "end_silence_ms": dice.choice([100, 400, 900]),
            "decide_ms": dice.choice([100, 400, 1000]),
            "max_turn_s": dice.choice([2, 30]),
        }
        async with Stage(
            **engines(dice),
            digits=FakeDigits("12", after_s=0.7),
            tools=("end_call", "collect_digits"),
            greeting="Hello and welcome. How can I help?",
            silence_s=4,
            turn=turn,
        ) as stage:
            for _ in range(40):
                if stage.task.done():
                    break
                await act(stage, dice)
            outcome = await stage.outcome()
            assert outcome.kind in {"silence", "failed"}
            assert not stage.playout.paused
        assert not stage.all(events.Fault)
        begun = [event for event in stage.all(events.Speculation) if event.state == "started"]
        assert len(begun) * 2 == len(stage.all(events.Speculation)), "every speculation is kept or discarded, once"

    scene()
