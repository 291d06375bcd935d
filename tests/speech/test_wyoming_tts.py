"""Text-to-speech by other people's servers, for which the protocol's library stands, and by several of ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.event import Event
from wyoming.info import Attribution, Describe, Info, TtsProgram, TtsVoice
from wyoming.server import AsyncEventHandler, AsyncServer
from wyoming.tts import Synthesize, SynthesizeVoice

from sipserver.audio.frame import RATE_HZ, Samples
from sipserver.errors import ProviderBusy, ProviderError, ProviderTimeout
from sipserver.speech import service
from sipserver.speech.peers import Peers
from sipserver.speech.settings import SpeechSettings, WyomingTtsSettings
from sipserver.speech.vendors import wyoming_tts
from sipserver.speech.vendors.wyoming_tts import WyomingTts
from sipserver.speech.worker.server import SpeechServer
from tests.fakes.engines import FakeTts, loud
from tests.fakes.speech_host import FakeHost

SOME = Attribution("somebody", "")
PIPERS_HZ = 22_050


class Foreign(AsyncEventHandler):
    """As wyoming-piper does it: 22,050 Hz in pieces. dies_after: pieces until it hangs up or falls silent."""

    def __init__(self, other: Other, *streams: Any) -> None:
        super().__init__(*streams)
        self._other = other

    async def handle_event(self, event: Event) -> bool:
        other = self._other
        if Describe.is_type(event.type):
            listed = (("amy", "en_GB"), ("eva", "de_DE"))
            voices = [TtsVoice(name, SOME, True, None, None, [tag]) for name, tag in listed]
            await self.write_event(Info(tts=[TtsProgram("theirs", SOME, True, None, None, voices)]).event())
        elif Synthesize.is_type(event.type):
            other.requests.append(Synthesize.from_event(event))
            await self.write_event(AudioStart(PIPERS_HZ, other.width, other.channels).event())
            for number in range(10):
                if number == other.dies_after:
                    return other.hangs
                payload = np.full(PIPERS_HZ // 10 * other.channels, 5_000, f"<i{other.width}").tobytes()
                await self.write_event(AudioChunk(PIPERS_HZ, other.width, other.channels, payload).event())
            await self.write_event(AudioStop().event())
            return False
        return True

    async def disconnect(self) -> None:
        self._other.gone.set()


class Other:
    def __init__(self, port: int) -> None:
        self.uri = f"tcp://127.0.0.1:{port}"
        self.requests: list[Synthesize] = []
        self.gone = asyncio.Event()
        self.dies_after, self.hangs = -1, False
        self.width, self.channels = 2, 1


@pytest.fixture
async def other(free_port: int) -> AsyncIterator[Other]:
    other = Other(free_port)
    server = AsyncServer.from_uri(other.uri)
    await server.start(lambda *streams: Foreign(other, *streams))
    yield other
    await server.stop()


def settings(uri: str, **more: Any) -> WyomingTtsSettings:
    return WyomingTtsSettings(vendor="wyoming", uri=uri, **more)


@asynccontextmanager
async def worker(folder: Path, name: str, engine: FakeTts) -> AsyncIterator[str]:
    """One of ours."""
    host, uri = FakeHost(tts=engine), f"unix://{folder}/{name}.sock"
    server = SpeechServer(host)
    await server.listen(uri)
    yield uri
    await server.close()
    await host.close()


async def spoken(engine: Any, text: str = "Hello.", **more: str) -> Samples:
    return np.concatenate([samples async for samples in engine.synthesise(text, **more)])


async def test_a_server_named_in_the_settings_speaks(other: Other) -> None:
    known = SpeechSettings(tts={"gpu": settings(other.uri, voice="amy")})
    speech = await service.load(known, tts=["gpu"], vad=False)
    engine = speech.tts["gpu"]
    assert (engine.capabilities.languages, engine.capabilities.voices) == ({"en", "de"}, ("amy", "eva"))
    sound = await spoken(engine, "Hello.", language="de")
    assert abs(len(sound) - RATE_HZ) <= 32
    assert np.median(sound) == pytest.approx(5_000, abs=5)
    await spoken(engine, "Hallo.", voice="eva")
    assert [(it.text, it.voice) for it in other.requests] == [
        ("Hello.", SynthesizeVoice("amy")),
        ("Hallo.", SynthesizeVoice("eva")),
    ]
    await speech.close()


async def test_wide_and_stereo_sound_becomes_ours(other: Other) -> None:
    other.channels = 2
    sound = await spoken(WyomingTts("gpu", Peers([other.uri]), settings(other.uri)))
    assert abs(len(sound) - RATE_HZ) <= 32


async def test_without_a_voice_the_language_is_asked_for(other: Other) -> None:
    await spoken(WyomingTts("gpu", Peers([other.uri]), settings(other.uri)), language="de-AT")
    assert other.requests[0].voice == SynthesizeVoice(language="de")


async def test_a_server_that_is_not_there_is_busy(free_port: int) -> None:
    engine = await wyoming_tts.load("gpu", settings(f"tcp://127.0.0.1:{free_port}"))
    assert engine.capabilities.voices is None
    with pytest.raises(ProviderBusy, match="no connection"):
        await spoken(engine)


async def test_closing_abandons_the_rest(other: Other) -> None:
    other.dies_after, other.hangs = 3, True
    engine = WyomingTts("gpu", Peers([other.uri]), settings(other.uri))
    async with aclosing(engine.synthesise("Hello.")) as chunks:
        await anext(chunks)
    await asyncio.wait_for(other.gone.wait(), 10)
    assert engine.depth == 0


async def test_a_server_that_falls_silent_is_a_timeout(other: Other) -> None:
    other.dies_after, other.hangs = 3, True
    engine = WyomingTts("gpu", Peers([other.uri]), settings(other.uri, timeout_s=0.5))
    with pytest.raises(ProviderTimeout, match="no sound"):
        await spoken(engine)


async def test_a_server_that_dies_in_the_middle_has_failed(other: Other) -> None:
    other.dies_after = 3
    with pytest.raises(ProviderBusy, match="closed"):
        await spoken(WyomingTts("gpu", Peers([other.uri, other.uri]), settings(other.uri)))
    assert len(other.requests) == 1, "what was begun is not begun again by the same engine"


async def test_our_workers_stand_in_for_one_another(tmp_path: Path) -> None:
    full, well = FakeTts(name="piper", error=ProviderBusy("piper", "full"), delay_s=0), FakeTts(name="piper", delay_s=0)
    async with worker(tmp_path, "full", full) as first, worker(tmp_path, "well", well) as second:
        engine = WyomingTts("piper", Peers([f"unix://{tmp_path}/gone.sock", first, second]), settings(first), "piper")
        for text in ("One, two, three.", "Four, five, six."):
            np.testing.assert_array_equal((await spoken(engine, text))[: len(loud(200))], loud(200))
        assert [text for text, _, _ in well.spoken] == ["One, two, three.", "Four, five, six."]


async def test_errors_of_the_engine_arrive(tmp_path: Path) -> None:
    broken = FakeTts(name="piper", error=ProviderError("piper", "no"), dies_after=1, delay_s=0)
    async with worker(tmp_path, "one", broken) as uri:
        engine = WyomingTts("piper", Peers([uri]), settings(uri), "piper")
        with pytest.raises(ProviderError, match="piper: no"):
            await spoken(engine, "A longer text.")


async def test_nothing_to_say_needs_no_server() -> None:
    engine = WyomingTts("gpu", Peers(["tcp://127.0.0.1:9"]), settings("tcp://127.0.0.1:9"))
    assert [samples async for samples in engine.synthesise("  ")] == []
