"""The STT chain by itself."""

from __future__ import annotations

import asyncio

import pytest

from sipserver.agent.transcriber import Heard, Transcriber, spoken
from sipserver.errors import ProviderBusy, ProviderRejected, ProviderTimeout
from sipserver.events import EngineUsed, Event, ProviderFailed
from tests.fakes.engines import FakeStt, loud
from tests.fakes.until import until
from tests.fakes.virtual_time import now_ns, virtual


def ears(*engines: FakeStt, language: str = "en") -> tuple[Transcriber, list[Event]]:
    events: list[Event] = []
    names = tuple(engine.name for engine in engines)
    named = {engine.name: engine for engine in engines}
    return Transcriber(named, names, language, 1.0, events.append, now_ns), events


@virtual
async def test_what_was_heard_and_how_long_it_took() -> None:
    transcriber, _ = ears(FakeStt(" Hello. ", delay_s=0.1))
    heard = await transcriber.transcribe(loud(1000))
    assert heard == Heard("Hello.", "en", "stt", 1000, 0, 100, 100, None)
    assert heard.event(final=True).final


@virtual
async def test_the_next_takes_over_after_the_timeout() -> None:
    transcriber, events = ears(FakeStt(name="slow", delay_s=50), FakeStt("Hi", name="quick", delay_s=0.1))
    heard = await transcriber.transcribe(loud(100))
    assert (heard.engine, heard.waited_ms, heard.took_ms) == ("quick", 1100, 100)
    failed = ProviderFailed("stt", "slow", "no transcript within 1 s", "quick")
    assert events == [EngineUsed("stt", 100, "slow"), failed, EngineUsed("stt", 100, "quick")]


@virtual
async def test_sound_that_was_refused_is_not_used_and_what_nobody_waits_for_is() -> None:
    transcriber, events = ears(
        FakeStt(ProviderBusy("full", "queue"), name="full"), FakeStt("Hi", name="slow", delay_s=0.5)
    )
    asking = asyncio.create_task(transcriber.transcribe(loud(100)))
    await until(lambda: len(events) == 1)
    asking.cancel()
    await asyncio.wait({asking})
    assert events == [ProviderFailed("stt", "full", "queue", "slow"), EngineUsed("stt", 100, "slow")]


@virtual
async def test_after_its_rest_the_first_is_asked_first_again() -> None:
    first = FakeStt(ProviderBusy("first", "queue full"), "Hi", name="first")
    transcriber, _ = ears(first, FakeStt("Ho", name="second"))
    assert (await transcriber.transcribe(loud(100))).engine == "second"
    assert (await transcriber.transcribe(loud(100))).engine == "second"
    await asyncio.sleep(31)
    assert (await transcriber.transcribe(loud(100))).engine == "first"


@virtual
async def test_exhausted_it_raises_the_last_error() -> None:
    transcriber, events = ears(FakeStt(ProviderBusy("a", "full"), name="a"), FakeStt(name="b", delay_s=50))
    with pytest.raises(ProviderTimeout, match="b: no transcript"):
        await transcriber.transcribe(loud(100))
    assert [event.next for event in events if isinstance(event, ProviderFailed)] == ["b", ""]


@virtual
async def test_without_any_engine_it_is_rejected() -> None:
    transcriber, _ = ears()
    with pytest.raises(ProviderRejected, match="no such engine"):
        await transcriber.transcribe(loud(100))


@virtual
async def test_engines_that_understand_the_language_go_first() -> None:
    english = FakeStt(name="tiny.en", languages=frozenset({"en"}))
    every = FakeStt("Hallo", name="base")
    transcriber, _ = ears(english, every, language="de")
    assert (await transcriber.transcribe(loud(100))).engine == "base"
    assert every.asked[0][1] == "de"


@virtual
async def test_an_engine_that_does_not_understand_it_does_what_it_can() -> None:
    english = FakeStt(name="tiny.en", languages=frozenset({"en"}))
    transcriber, _ = ears(english, language="de")
    await transcriber.transcribe(loud(100))
    assert english.asked[0][1] == "auto"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("(coughing)", ""),
        ("[BLANK_AUDIO]", ""),
        ("*sighs* Well, yes.", "Well, yes."),
        ("...", ""),
        (" Room 5 ", "Room 5"),
    ],
)
def test_sounds_in_a_transcript_are_no_words(text: str, words: str) -> None:
    assert spoken(text) == words
