"""Whole conversations in virtual time: every outcome, the order of things, what the caller hears and when."""

from __future__ import annotations

from sipserver import events
from sipserver.errors import ProviderRejected
from tests.fakes.engines import FakeLlm, FakeStt, FakeTts, call
from tests.fakes.stage import Stage
from tests.fakes.virtual_time import virtual


@virtual
async def test_a_greeting_a_question_and_an_answer() -> None:
    llm = FakeLlm(["We are open, from nine to five. Anything else?"])
    async with Stage(stt=[FakeStt("when are you open")], llm=[llm], greeting="Hello. How can I help?") as stage:
        await stage.next(events.Spoken, lambda spoken: spoken.text == "How can I help?")
        await stage.phone.speak(1000)
        await stage.next(events.Spoken, lambda spoken: spoken.text == "Anything else?")
        latency = stage.all(events.TurnLatency)
    assert [spoken.text for spoken in stage.all(events.Spoken)] == [
        "Hello.",
        "How can I help?",
        "We are open,",
        "from nine to five.",
        "Anything else?",
    ]
    assert all(spoken.complete for spoken in stage.all(events.Spoken))
    roles = [(message.role, message.content) for message in llm.asked[0][0]]
    assert roles == [
        ("system", "You answer the phone."),
        ("assistant", "Hello. How can I help?"),
        ("user", "when are you open"),
    ]
    assert len(latency) == 1
    assert latency[0].speculative
    assert latency[0].playout_ms <= 40
    assert latency[0].total_ms <= latency[0].endpoint_ms + 40
    finals = [(transcript.text, transcript.final) for transcript in stage.all(events.Transcript)]
    assert finals == [("when are you open", False), ("when are you open", True)]
