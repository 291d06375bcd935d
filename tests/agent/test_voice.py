"""The voice by itself: chain, cache, choice of engine and voice, and `say` for dialplan steps."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from sipserver import events
from sipserver.agent.voice import AudioCache, Voice, loud_from, voice_language
from sipserver.audio.frame import RATE_HZ
from sipserver.audio.playout import Playout
from sipserver.errors import ProviderRejected, ProviderTimeout
from sipserver.events import Event
from tests.fakes.engines import FakeTts, loud
from tests.fakes.stage import Telephone
from tests.fakes.virtual_time import now_ns, virtual


class Booth:
    """A voice with a telephone on its playout; `async with` runs the media clock."""

    def __init__(self, *engines: FakeTts, cache: AudioCache | None = None) -> None:
        self.engines = engines or (FakeTts(),)
        self.events: list[Event] = []
        self.cache = cache or AudioCache()
        self.playout = Playout()
        self.phone = Telephone(self.playout)
        self.chain = [engine.name for engine in self.engines]

    async def __aenter__(self) -> Booth:
        named = {engine.name: engine for engine in self.engines}
        self.voice = Voice(named, self.events.append, self.cache, timeout_s=1, clock=now_ns)
        self._clock = asyncio.create_task(self.phone.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._clock.cancel()
        await asyncio.wait((self._clock,))

    def all(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


@virtual
async def test_a_text_is_said_sentence_by_sentence_and_heard() -> None:
    async with Booth() as booth:
        spoken = await booth.voice.say("Hello, caller. Good bye.", booth.playout, chain=booth.chain)
    assert (spoken.heard, spoken.complete) == ("Hello, caller. Good bye.", True)
    assert spoken.heard_ms == spoken.audio_ms > 0
    assert [event.text for event in booth.all(events.Spoken)] == ["Hello, caller.", "Good bye."]  # type: ignore[attr-defined]


@virtual
async def test_a_second_time_it_comes_from_the_cache() -> None:
    async with Booth() as booth:
        for _ in range(2):
            await booth.voice.say("Hello.", booth.playout, chain=booth.chain)
    assert len(booth.engines[0].spoken) == 1
    assert [event.cached for event in booth.all(events.ClauseSynthesised)] == [False, True]  # type: ignore[attr-defined]
    assert booth.all(events.EngineUsed) == [events.EngineUsed("tts", len("Hello."), "tts")]


@virtual
async def test_what_an_engine_refused_is_not_used_and_what_was_cut_off_is() -> None:
    async with Booth(FakeTts(name="full", error=ProviderRejected("full", "quota")), FakeTts(name="well")) as booth:
        chunks = booth.voice.synthesise("A long clause that is cut off.", chain=booth.chain)
        await anext(chunks)
        await chunks.aclose()  # type: ignore[attr-defined]
    assert booth.all(events.EngineUsed) == [events.EngineUsed("tts", 30, "well")]


@virtual
async def test_what_is_not_cacheable_is_synthesised_again() -> None:
    async with Booth() as booth:
        for _ in range(2):
            await booth.voice.say("You are number 3.", booth.playout, chain=booth.chain, cacheable=False)
    assert len(booth.engines[0].spoken) == 2
    assert len(booth.cache) == 0


@virtual
async def test_what_was_prepared_is_said_although_the_engine_has_died() -> None:
    engine = FakeTts()
    async with Booth(engine) as booth:
        assert await booth.voice.prepare("Hello. Good bye.", chain=booth.chain)
        assert await booth.voice.prepare("Hello. Good bye.", chain=booth.chain)
        assert len(engine.spoken) == 2
        engine.error = ProviderRejected("tts", "dead")
        spoken = await booth.voice.say("Hello.", booth.playout, chain=booth.chain)
        assert not await booth.voice.prepare("Something else.", chain=booth.chain)
    assert spoken.complete


@virtual
async def test_cancelled_it_flushes_and_tells_what_was_heard() -> None:
    async with Booth() as booth:
        text = "This is a sentence that takes some time to be spoken."
        saying = asyncio.create_task(booth.voice.say(text, booth.playout, chain=booth.chain))
        await asyncio.sleep(1)
        saying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await saying
        assert booth.playout.pending_ms == 0
    (spoken,) = booth.all(events.Spoken)
    assert isinstance(spoken, events.Spoken)
    assert not spoken.complete
    assert spoken.heard
    assert text.startswith(spoken.heard)


@virtual
async def test_flushed_by_somebody_else_it_ends_and_says_no_more() -> None:
    async with Booth() as booth:
        saying = asyncio.create_task(
            booth.voice.say("This is one sentence. This is another.", booth.playout, chain=booth.chain)
        )
        await asyncio.sleep(0.5)
        booth.playout.flush()
        spoken = await saying
    assert not spoken.complete


@virtual
async def test_no_engine_of_the_chain_is_known() -> None:
    async with Booth() as booth:
        with pytest.raises(ProviderRejected, match="no such engine"):
            await booth.voice.say("Hello.", booth.playout, chain=["other"])


@virtual
async def test_an_engine_that_hangs_is_given_up_and_not_asked_first_again() -> None:
    slow, quick = FakeTts(name="slow", delay_s=100), FakeTts(name="quick")
    async with Booth(slow, quick) as booth:
        await booth.voice.say("One.", booth.playout, chain=booth.chain)
        await booth.voice.say("Two.", booth.playout, chain=booth.chain)
    assert [text for text, _, _ in slow.spoken] == ["One."]
    assert booth.all(events.ProviderFailed)[0].error == "no sound within 1 s"  # type: ignore[attr-defined]


@virtual
async def test_the_last_engines_error_is_raised() -> None:
    async with Booth(FakeTts(delay_s=100)) as booth:
        with pytest.raises(ProviderTimeout):
            await booth.voice.say("Hello.", booth.playout, chain=booth.chain)


@virtual
async def test_the_engine_that_speaks_the_language_is_asked_first() -> None:
    english = FakeTts(name="piper", voices=("en_US-joe-medium", "de_DE-eva-low"))
    every = FakeTts(name="espeak", languages=None, voices=())
    async with Booth(english, every) as booth:
        say = booth.voice.say
        await say("Hallo.", booth.playout, chain=booth.chain, language="de", voice="en_US-joe-medium")
        await say("Hello.", booth.playout, chain=booth.chain, language="en", voice="en_US-joe-medium")
        await say("Hello!", booth.playout, chain=booth.chain, language="en", voice="nobody")
    assert every.spoken == [("Hallo.", "", "de")]
    assert english.spoken == [("Hello.", "en_US-joe-medium", "en"), ("Hello!", "", "en")]
    assert booth.voice.speaks("fi", ["espeak"])
    assert not booth.voice.speaks("fi", ["piper", "unknown"])


@virtual
async def test_leading_silence_is_cut() -> None:
    class Late(FakeTts):
        async def synthesise(self, text: str, *, voice: str = "", language: str = "en"):  # type: ignore[no-untyped-def]
            yield np.zeros(RATE_HZ // 2, np.int16)
            yield np.concatenate((np.zeros(RATE_HZ // 10, np.int16), loud(500)))

    async with Booth(Late()) as booth:
        spoken = await booth.voice.say("Hello.", booth.playout, chain=booth.chain)
    assert 500 <= spoken.audio_ms <= 540


def test_the_cache_is_bounded_by_bytes_and_drops_what_was_not_used() -> None:
    cache = AudioCache(max_bytes=4000)
    for name in "abcd":
        cache.put((name, "", "en", ""), np.zeros(500, np.int16))
    assert cache.get(("a", "", "en", "")) is not None
    cache.put(("e", "", "en", ""), np.zeros(500, np.int16))
    assert cache.get(("b", "", "en", "")) is None
    assert cache.get(("a", "", "en", "")) is not None
    assert cache.size_bytes == 4000
    cache.put(("huge", "", "en", ""), np.zeros(2000, np.int16))
    assert cache.get(("huge", "", "en", "")) is None
    cache.put(("a", "", "en", ""), np.zeros(100, np.int16))
    assert cache.size_bytes == 3200


@pytest.mark.parametrize(
    ("voice", "language"), [("de_DE-thorsten-medium", "de"), ("en-US-Wavenet", "en"), ("alloy", ""), ("", "")]
)
def test_the_language_in_a_voices_name(voice: str, language: str) -> None:
    assert voice_language(voice) == language


def test_where_the_sound_begins() -> None:
    assert loud_from(np.array([0, 10, -32768, 5], np.int16)) == 2
    assert loud_from(np.zeros(10, np.int16)) is None
