"""The worker's server, asked by a client of the protocol's own library: nothing here is ours but the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient
from wyoming.error import Error
from wyoming.event import Event
from wyoming.info import Describe, Info, SelectProgram
from wyoming.ping import Ping, Pong
from wyoming.tts import Synthesize, SynthesizeVoice
from wyoming.vad import VoiceStarted, VoiceStopped

from sipserver.audio.frame import RATE_HZ, Samples
from sipserver.errors import ModelMissing, ProviderBusy
from sipserver.speech import sockets
from sipserver.speech.wire import Wish
from sipserver.speech.worker.server import SpeechServer
from tests.fakes.engines import FakeStt, FakeTts, loud
from tests.fakes.queued_stt import QueuedStt
from tests.fakes.speech_host import FakeHost
from tests.fakes.until import until

ANSWER_S = 10.0


class Worker:
    """A server with its host, and clients."""

    def __init__(self, host: FakeHost, uri: str) -> None:
        self.host, self.uri = host, uri
        self.server = SpeechServer(host)

    def client(self) -> AsyncClient:
        return AsyncClient.from_uri(self.uri, connect_timeout=ANSWER_S, read_timeout=ANSWER_S)

    async def nobody_left(self) -> None:
        await until(lambda: not self.server.connections)


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    worker = Worker(FakeHost(), f"unix://{tmp_path}/speech.sock")
    await worker.server.listen(worker.uri)
    yield worker
    await worker.server.close()
    await worker.host.close()


async def tell(client: AsyncClient, *events: Event) -> None:
    for event in events:
        await client.write_event(event)


async def answer(client: AsyncClient) -> Event:
    event = await client.read_event()
    assert event is not None
    return event


async def send(client: AsyncClient, samples: Samples, rate_hz: int = RATE_HZ) -> None:
    await tell(client, AudioStart(rate_hz, 2, 1).event())
    for start in range(0, len(samples), 1024):
        await tell(client, AudioChunk(rate_hz, 2, 1, samples[start : start + 1024].tobytes()).event())


async def transcript(client: AsyncClient, samples: Samples, request: Transcribe, rate_hz: int = RATE_HZ) -> Event:
    await tell(client, request.event())
    await send(client, samples, rate_hz)
    await tell(client, AudioStop().event())
    return await answer(client)


async def test_it_says_what_it_has_and_that_it_lives(worker: Worker) -> None:
    async with worker.client() as client:
        await tell(client, Event("something-new"), Describe().event())
        info = Info.from_event(await answer(client))
        assert [program.name for program in info.asr] == ["whisper"]
        assert [voice.languages for program in info.tts for voice in program.voices] == [["en"]]
        await tell(client, Ping("there?").event())
        assert Pong.from_event(await answer(client)).text == "there?"


async def test_an_utterance_becomes_a_transcript(worker: Worker) -> None:
    engine = worker.host.stt["whisper"] = FakeStt("good morning", name="whisper", delay_s=0)
    async with worker.client() as client:
        first = Transcript.from_event(await transcript(client, loud(500), Transcribe(language="de")))
        second = Transcript.from_event(await transcript(client, loud(300), Transcribe()))
    assert (first.text, first.language, second.language) == ("good morning", "de", "en")
    assert engine.asked == [(500, "de", False), (300, "auto", False)]


async def test_other_rates_are_converted(worker: Worker) -> None:
    engine = worker.host.stt["whisper"] = FakeStt(name="whisper", delay_s=0)
    async with worker.client() as client:
        await transcript(client, loud(500), Transcribe(), rate_hz=8_000)
    assert 990 <= engine.asked[0][0] <= 1010


async def test_the_model_that_is_asked_for_answers_and_no_other_in_its_place(worker: Worker) -> None:
    worker.host.stt["german"] = FakeStt("guten Tag", name="german", delay_s=0)
    async with worker.client() as client:
        assert Transcript.from_event(await transcript(client, loud(100), Transcribe("german"))).text == "guten Tag"
        await tell(client, SelectProgram("missing").event())
        error = Error.from_event(await transcript(client, loud(100), Transcribe()))
        assert error.code == "busy"


async def test_errors_have_codes_and_the_connection_goes_on(worker: Worker) -> None:
    worker.host.stt["whisper"] = FakeStt(ProviderBusy("whisper", "full"), "again", name="whisper", delay_s=0)
    async with worker.client() as client:
        assert Error.from_event(await transcript(client, loud(100), Transcribe())).code == "busy"
        assert Transcript.from_event(await transcript(client, loud(100), Transcribe())).text == "again"


async def test_a_fault_of_ours_is_told_as_a_failure(worker: Worker) -> None:
    worker.host.stt["whisper"] = FakeStt(ZeroDivisionError("odd"), name="whisper", delay_s=0)
    async with worker.client() as client:
        assert Error.from_event(await transcript(client, loud(100), Transcribe())).code == "failed"


async def test_an_endless_utterance_is_refused(worker: Worker) -> None:
    async with worker.client() as client:
        await tell(client, Transcribe().event())
        await send(client, loud(31_000))
        assert Error.from_event(await answer(client)).code == "rejected"


async def test_who_goes_away_leaves_no_work_behind(worker: Worker) -> None:
    engine = QueuedStt()
    worker.host.stt["whisper"] = engine
    first, second = worker.client(), worker.client()
    for number, client in enumerate((first, second)):
        await client.connect()
        await tell(client, Transcribe().event())
        await send(client, loud(100 * (number + 1)))
        await tell(client, AudioStop().event())
        await engine.holds(running=1, waiting=number)
    await second.disconnect()
    await engine.holds(running=1, waiting=0)
    engine.let_go()
    assert Transcript.from_event(await answer(first)).text == "100 ms"
    await first.disconnect()
    await engine.close()
    assert engine.worked == [100]


async def test_voices_of_a_stream_by_messages_have_their_times(worker: Worker) -> None:
    async with worker.client() as client:
        await tell(client, AudioStart(RATE_HZ, 2, 1).event())
        parts = [np.full(3200, 100, np.int16), loud(320), np.full(6400, 100, np.int16)]
        for samples in parts:
            for start in range(0, len(samples), 512):
                await tell(client, AudioChunk(RATE_HZ, 2, 1, samples[start : start + 512].tobytes()).event())
                await asyncio.sleep(0.02)
        started, stopped = await answer(client), await answer(client)
        assert VoiceStarted.is_type(started.type)
        assert VoiceStopped.is_type(stopped.type)
        assert VoiceStarted.from_event(started).timestamp == 192
        assert VoiceStopped.from_event(stopped).timestamp in (512, 544)
        judge = worker.host.judge
        assert judge is not None
        assert judge.streams == 1
        await tell(client, AudioStop().event(), Ping().event())
        await answer(client)
        assert judge.streams == 0


async def test_a_client_that_dies_frees_its_stream(worker: Worker) -> None:
    judge = worker.host.judge
    assert judge is not None
    client = worker.client()
    await client.connect()
    await tell(client, AudioStart(RATE_HZ, 2, 1).event(), Ping().event())
    await answer(client)
    assert judge.streams == 1
    await client.disconnect()
    await worker.nobody_left()
    assert judge.streams == 0


async def test_without_a_detector_streams_are_refused(worker: Worker) -> None:
    worker.host.judge = None
    async with worker.client() as client:
        await tell(client, AudioStart(RATE_HZ, 2, 1).event())
        assert Error.from_event(await answer(client)).code == "busy"


async def test_a_text_is_spoken_while_it_comes_and_kept(worker: Worker) -> None:
    engine = worker.host.tts["piper"] = FakeTts(name="piper", delay_s=0)
    spoken = []
    for _ in range(2):
        async with worker.client() as client:
            await tell(client, Synthesize("Hello there.", SynthesizeVoice(language="en")).event())
            start = AudioStart.from_event(await answer(client))
            assert (start.rate, start.width, start.channels) == (RATE_HZ, 2, 1)
            payload = b""
            while AudioChunk.is_type((event := await answer(client)).type):
                payload += AudioChunk.from_event(event).audio
            assert AudioStop.is_type(event.type)
            spoken.append(payload)
    assert spoken[0] == spoken[1]
    assert len(spoken[0]) > RATE_HZ
    assert engine.spoken == [("Hello there.", "", "en")]


async def test_loading_is_asked_for_and_refused_in_words(worker: Worker) -> None:
    async with worker.client() as client:
        await tell(client, Wish(("german",)).event())
        loaded = await answer(client)
        assert loaded.type == "engines-loaded"
        assert "whisper" in loaded.data["engines"]["stt"]
        worker.host.refuses = ModelMissing("base", "sipserver models install base")
        await tell(client, Wish(vad=True).event())
        assert Error.from_event(await answer(client)).code == "model-missing"
    assert [wish.stt for wish in worker.host.wishes] == [("german",), ()]


async def test_where_a_model_listens(worker: Worker) -> None:
    async with worker.client() as client:
        await tell(client, Event("locate-model", {"name": "local"}))
        assert Error.from_event(await answer(client)).code == "rejected"
        worker.host.models["local"] = ("http://127.0.0.1:9", "key")
        await tell(client, Event("locate-model", {"name": "local"}))
        assert (await answer(client)).data == {"url": "http://127.0.0.1:9", "key": "key"}


@pytest.mark.parametrize(
    "garbage", [b"no json\n", b"[1]\n", b"{}\n", b'{"type": "audio-chunk"}\n', b'{"type": 1, "data_length": 9}\nxx']
)
async def test_a_client_that_talks_nonsense_is_let_go(worker: Worker, garbage: bytes) -> None:
    _, writer = await sockets.connect(worker.uri)
    writer.write(garbage)
    writer.write_eof()
    await worker.nobody_left()
    writer.close()
    async with worker.client() as client:
        await tell(client, Ping().event())
        assert Pong.is_type((await answer(client)).type)


async def test_over_tcp() -> None:
    host = FakeHost()
    worker = Worker(host, "")
    (worker.uri,) = await worker.server.listen("tcp://127.0.0.1:0")
    async with worker.client() as client:
        assert Transcript.from_event(await transcript(client, loud(200), Transcribe())).text == "hello there"
    await worker.server.close()
    await host.close()
