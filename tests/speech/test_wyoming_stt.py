"""Speech-to-text by other people's servers, for which the protocol's library stands, and by several of ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStop
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import AsrModel, AsrProgram, Attribution, Describe, Info
from wyoming.server import AsyncEventHandler, AsyncServer

from sipserver.audio.frame import RATE_HZ
from sipserver.errors import ProviderBusy, ProviderError, ProviderTimeout
from sipserver.speech import service
from sipserver.speech.peers import Peers
from sipserver.speech.settings import SpeechSettings, WyomingSttSettings
from sipserver.speech.vendors import wyoming_stt
from sipserver.speech.vendors.wyoming_stt import WyomingStt
from sipserver.speech.worker.server import SpeechServer
from tests.fakes.engines import FakeStt, loud
from tests.fakes.queued_stt import QueuedStt
from tests.fakes.speech_host import FakeHost
from tests.fakes.until import until

SOME = Attribution("somebody", "")


class Foreign(AsyncEventHandler):
    """As wyoming-faster-whisper does it: one transcript a connection, then it hangs up."""

    def __init__(self, other: Other, *streams: Any) -> None:
        super().__init__(*streams)
        self._other, self._payload, self._language = other, b"", ""

    async def handle_event(self, event: Event) -> bool:
        other = self._other
        if Describe.is_type(event.type):
            models = [AsrModel("large", SOME, True, None, None, ["en", "de"])]
            await self.write_event(Info(asr=[AsrProgram("theirs", SOME, True, None, None, models)]).event())
        elif Transcribe.is_type(event.type):
            other.requests.append(Transcribe.from_event(event))
        elif AudioChunk.is_type(event.type):
            self._payload += AudioChunk.from_event(event).audio
        elif AudioStop.is_type(event.type):
            if other.answer is None:
                return True
            await self.write_event(other.answer(len(self._payload) * 1000 // 2 // RATE_HZ))
            return False
        return True

    async def disconnect(self) -> None:
        self._other.gone.set()


class Other:
    """A server of the library's own. answer: from the milliseconds heard; None: it says nothing."""

    def __init__(self, port: int) -> None:
        self.uri = f"tcp://127.0.0.1:{port}"
        self.requests: list[Transcribe] = []
        self.gone = asyncio.Event()
        self.answer: Callable[[int], Event] | None = lambda heard_ms: Transcript(f" {heard_ms} ms").event()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Other]:
        server = AsyncServer.from_uri(self.uri)
        await server.start(lambda *streams: Foreign(self, *streams))
        yield self
        await server.stop()


@pytest.fixture
async def other(free_port: int) -> AsyncIterator[Other]:
    async with Other(free_port).serving() as other:
        yield other


def settings(uri: str, **more: Any) -> WyomingSttSettings:
    return WyomingSttSettings(vendor="wyoming", uri=uri, **more)


@asynccontextmanager
async def worker(folder: Path, name: str, engine: FakeStt | QueuedStt) -> AsyncIterator[str]:
    """One of ours."""
    host, uri = FakeHost(engine), f"unix://{folder}/{name}.sock"
    server = SpeechServer(host)
    await server.listen(uri)
    yield uri
    await server.close()
    await host.close()


async def test_a_server_named_in_the_settings_is_asked(other: Other) -> None:
    known = SpeechSettings(stt={"gpu": settings(other.uri, model="large")})
    speech = await service.load(known, stt=["gpu"], vad=False)
    engine = speech.stt["gpu"]
    assert engine.capabilities.languages == {"en", "de"}
    assert not engine.capabilities.local
    heard = await engine.transcribe(loud(2_500), language="de-AT")
    assert (heard.text, heard.language, heard.confidence) == ("2500 ms", "de", None)
    assert heard.took_ms >= 0
    request = other.requests[-1]
    assert (request.name, request.language) == ("large", "de")
    await engine.transcribe(loud(100), speculative=True)
    assert (other.requests[-1].language, other.requests[-1].context) == (None, {"speculative": True})
    await speech.close()


async def test_a_server_that_is_not_there_yet_is_taken_to_know_everything(free_port: int) -> None:
    engine = await wyoming_stt.load("gpu", settings(f"tcp://127.0.0.1:{free_port}"))
    assert engine.capabilities.languages is None
    assert not engine.ready
    with pytest.raises(ProviderBusy, match="no connection"):
        await engine.transcribe(loud(100))
    async with Other(free_port).serving():
        assert (await engine.transcribe(loud(100))).text == "100 ms"
        assert engine.ready


async def test_no_sound_needs_no_server() -> None:
    engine = WyomingStt("gpu", Peers(["tcp://127.0.0.1:9"]), settings("tcp://127.0.0.1:9"))
    assert (await engine.transcribe(loud(0))).text == ""


async def test_silence_of_the_server_is_a_timeout(other: Other) -> None:
    other.answer = None
    engine = WyomingStt("gpu", Peers([other.uri]), settings(other.uri, timeout_s=0.5))
    with pytest.raises(ProviderTimeout):
        await engine.transcribe(loud(100))
    await asyncio.wait_for(other.gone.wait(), 10)


async def test_cancelling_hangs_up(other: Other) -> None:
    other.answer = None
    engine = WyomingStt("gpu", Peers([other.uri]), settings(other.uri))
    asking = asyncio.create_task(engine.transcribe(loud(100)))
    await until(lambda: bool(other.requests))
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.wait_for(other.gone.wait(), 10)


async def test_errors_of_the_server_are_errors_of_the_provider(other: Other) -> None:
    other.answer = lambda _heard_ms: Error("out of memory", "oom").event()
    engine = WyomingStt("gpu", Peers([other.uri]), settings(other.uri))
    with pytest.raises(ProviderError, match="out of memory"):
        await engine.transcribe(loud(100))


async def test_more_than_may_be_asked_at_once_wait_and_then_are_refused(other: Other) -> None:
    other.answer = None
    engine = WyomingStt("gpu", Peers([other.uri]), settings(other.uri, concurrency=1, queue=1))
    asking = [asyncio.create_task(engine.transcribe(loud(100))) for _ in range(2)]
    await until(lambda: bool(other.requests) and engine.depth == 1)
    with pytest.raises(ProviderBusy):
        await engine.transcribe(loud(100))
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)


async def test_a_full_worker_says_so_and_sure_work_goes_before_guesses(tmp_path: Path) -> None:
    engine = QueuedStt()
    async with worker(tmp_path, "one", engine) as uri:
        client = WyomingStt("whisper", Peers([uri]), settings(uri), program="whisper")
        running = asyncio.create_task(client.transcribe(loud(100)))
        await engine.holds(running=1, waiting=0)
        guess = asyncio.create_task(client.transcribe(loud(200), speculative=True))
        await engine.holds(running=1, waiting=1)
        sure = asyncio.create_task(client.transcribe(loud(300)))
        await engine.holds(running=1, waiting=2)
        with pytest.raises(ProviderBusy, match="wait already"):
            await client.transcribe(loud(400), speculative=True)
        surer = asyncio.create_task(client.transcribe(loud(500)))
        with pytest.raises(ProviderBusy, match="made room"):
            await guess
        engine.let_go(3)
        assert [(await task).text for task in (running, sure, surer)] == ["100 ms", "300 ms", "500 ms"]
        assert (await running).confidence == -0.25
        assert engine.worked == [100, 300, 500]
        await engine.close()


async def test_cancelled_work_leaves_the_workers_queue(tmp_path: Path) -> None:
    engine = QueuedStt()
    async with worker(tmp_path, "one", engine) as uri:
        client = WyomingStt("whisper", Peers([uri]), settings(uri), program="whisper")
        tasks = [asyncio.create_task(client.transcribe(loud(100 * number))) for number in (1, 2, 3)]
        await engine.holds(running=1, waiting=2)
        tasks[1].cancel()
        await engine.holds(running=1, waiting=1)
        engine.let_go(2)
        assert (await tasks[0]).text == "100 ms"
        assert (await tasks[2]).text == "300 ms"
        assert engine.worked == [100, 300]
        await asyncio.gather(*tasks, return_exceptions=True)
        await engine.close()


async def test_a_worker_that_is_full_or_gone_is_stood_in_for(tmp_path: Path) -> None:
    full, well = FakeStt(ProviderBusy("whisper", "full"), name="whisper", delay_s=0), FakeStt("well", delay_s=0)
    async with worker(tmp_path, "full", full) as first, worker(tmp_path, "well", well) as second:
        gone = f"unix://{tmp_path}/gone.sock"
        peers = Peers([gone, first, second])
        client = WyomingStt("whisper", peers, settings(first))
        assert [(await client.transcribe(loud(100))).text for _ in range(3)] == ["well"] * 3
        assert peers.ready
        assert peers.lost <= 1
        assert peers.order()[-1].uri == gone or peers.lost == 0
