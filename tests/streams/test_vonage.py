"""Calls of Vonage against a real server, by a Vonage that checks the wire."""

from __future__ import annotations

import asyncio
import json
import math
import struct
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from tests.harness.records import record_of
from tests.harness.server import ServerProcess
from tests.servers.vonage import APPLICATION, SECRET, answer_url, started
from tests.streams.talking import talking
from tools.conformance.vonage import Endpoint, VonageStream, ask, check, connected

TO, FROM = "4930123456", "493098765432"
PLAN = """
tenant: acme
flows:
  echo: [answer, {echo: {max_s: 60}}]
  recorded: [answer, {record: {stereo: true}}, {echo: {max_s: 60}}]
  menu:
    - answer
    - collect: {say: Press a key. %s, digits: 2, timeout_s: 20, on: {"42": bye, none: bye, other: bye}}
  words: [answer, {say: One two three four five six seven eight nine ten eleven twelve.}, {echo: {max_s: 60}}]
  bye: [{say: Good bye.}, hangup]
routes:
  - {match: {to: "+4930123456"}, flow: echo}
  - {match: {to: "+4930000001"}, flow: recorded}
  - {match: {to: "+4930000002"}, flow: menu}
  - {match: {to: "+4930000003"}, flow: words}
""" % ("One two three four five six seven eight nine ten. " * 4)


@pytest.fixture(scope="module", params=[16_000, 8000, 24_000])
def server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    with started(tmp_path_factory.mktemp("vonage"), PLAN, {"rate_hz": request.param}) as made:
        yield made


def rate_of(server: ServerProcess) -> int:
    return int(server.settings_file.read_text().split("rate_hz: ")[1].split()[0])


def tone(seconds: float, rate_hz: int, hz: float = 440.0) -> bytes:
    count = round(rate_hz * seconds)
    return struct.pack(f"<{count}h", *(round(8000 * math.sin(2 * math.pi * hz * at / rate_hz)) for at in range(count)))


def loudest(sound: bytes) -> int:
    return max(map(abs, struct.unpack(f"<{len(sound) // 2}h", sound)), default=0)


async def answered(client: aiohttp.ClientSession, server: ServerProcess, to: str, call: str, method: str) -> Endpoint:
    fields = {"to": to, "from": FROM, "uuid": call, "conversation_uuid": f"CON-{call}"}
    status, text = await ask(client, answer_url(server), APPLICATION, SECRET, fields, method=method)
    assert status == 200, text
    return Endpoint.parse(json.loads(text))


@asynccontextmanager
async def calling(server: ServerProcess, to: str = TO, method: str = "POST") -> AsyncIterator[tuple[VonageStream, str]]:
    call = str(uuid.uuid4())
    async with (
        aiohttp.ClientSession() as client,
        connected(client, await answered(client, server, to, call, method)) as stream,
    ):
        yield stream, call


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_caller_hears_themselves_and_hangs_up(server: ServerProcess, method: str) -> None:
    rate_hz = rate_of(server)
    async with calling(server, method=method) as (stream, call):
        second = tone(1.0, rate_hz)
        async with talking(stream.talk, second) as words:
            await stream.until(lambda: len(stream.played) >= len(second), "a second of the echo")
        assert bytes(stream.played) in words, "nothing is missing or changed once it has begun"
        await stream.stop()
    assert not stream.faults
    record = await record_of(server.database, call)
    assert (record.reason, record.answered) == ("caller_hangup", True)
    begun = record.of("call.started")[0]
    assert begun["to_uri"].startswith(f"sip:+{TO}@")
    assert begun["from_uri"].startswith(f"sip:+{FROM}@")
    media = record.of("media.started")[0]
    assert (media["codec"], media["clock_hz"]) == ("L16", rate_hz)


async def test_messages_that_are_not_20_ms_are_heard_and_counted_and_20_ms_go_back(server: ServerProcess) -> None:
    async with calling(server) as (stream, call):
        second = tone(1.0, rate_of(server))
        async with talking(partial(stream.talk, frame=stream.frame - 20), second) as words:
            await stream.until(lambda: len(stream.played) >= len(second), "a second of the echo")
        assert bytes(stream.played) in words
        await stream.socket.send_bytes(b"odd")
        await stream.say("websocket:dtmf", digit="1")
        await stream.stop()
    assert not stream.faults
    stats = (await record_of(server.database, call)).of("stream.stats")[-1]
    assert stats["bad"] >= 50


async def test_the_echo_through_the_pipeline_is_recorded(server: ServerProcess) -> None:
    async with calling(server, "4930000001") as (stream, call):
        second = tone(1.0, rate_of(server))
        async with talking(stream.talk, second):
            await stream.until(lambda: len(stream.played) > 1.2 * len(second), "the echo")
        assert loudest(bytes(stream.played[-stream.frame * 5 :])) > 6000
        await stream.stop()
    assert not stream.faults
    record = await record_of(server.database, call)
    assert record.recording_status == "complete"
    assert len(await asyncio.to_thread(Path(record.recording).read_bytes)) > 1.2 * 2 * 2 * 16_000


async def test_a_key_silences_the_question_and_leads_to_the_end(server: ServerProcess) -> None:
    async with calling(server, "4930000002") as (stream, call):
        await stream.until(lambda: len(stream.played_at_s) > 20, "the question")
        for digit in "42":
            await stream.digit(digit)
        assert await stream.ended(20) == 1000
    assert not stream.faults
    assert stream.cleared >= 1
    assert stream.most_ahead_s < 0.4
    record = await record_of(server.database, call)
    assert record.reason == "dialplan_hangup"
    assert [each["method"] for each in record.of("digit.received")] == ["stream", "stream"]


async def test_what_was_said_is_told_when_it_was_heard(server: ServerProcess) -> None:
    async with calling(server, "4930000003") as (stream, call):
        await stream.until(lambda: any(played for _, played in stream.told), "the answer after the words", 20)
        assert len(stream.played) / 2 / stream.rate_hz > 2
        assert stream.most_ahead_s < 0.4, "it comes at the pace at which it is heard"
        await stream.stop()
    assert not stream.faults
    assert (await record_of(server.database, call)).of("stream.stats")[-1]["marks_played"] >= 1


# --- faults -----------------------------------------------------------------------------------------------------------


async def test_a_token_is_good_for_one_websocket_however_often_vonage_asks(server: ServerProcess) -> None:
    call = str(uuid.uuid4())
    async with aiohttp.ClientSession() as client:
        first, second = [await answered(client, server, TO, call, "POST") for _ in range(2)]
        async with connected(client, first) as stream:
            await stream.talk(tone(0.2, stream.rate_hz))
            for endpoint in (first, second):
                async with connected(client, endpoint) as again:
                    assert await again.ended() == 4403
            await stream.talk(tone(0.2, stream.rate_hz))
            assert not stream.socket.closed


@pytest.mark.parametrize("headers", [{}, {"token": "nonsense"}, {"token": 7}])
async def test_a_websocket_without_a_good_token_is_refused(server: ServerProcess, headers: dict[str, object]) -> None:
    async with aiohttp.ClientSession() as client:
        known = await answered(client, server, TO, str(uuid.uuid4()), "POST")
        async with connected(client, Endpoint(known.uri, known.rate_hz, headers)) as stream:
            assert await stream.ended() == 4403
        other = 8000 if known.rate_hz != 8000 else 16_000
        async with connected(client, Endpoint(known.uri, other, known.headers)) as stream:
            assert await stream.ended() == 4403


async def test_what_makes_no_sense_is_counted_and_the_call_goes_on(server: ServerProcess) -> None:
    async with calling(server) as (stream, call):
        for text in ("not json", "[]", "{}", '{"event": "websocket:dtmf"}', '{"event": "websocket:notify"}'):
            await stream.socket.send_str(text)
        await stream.say("websocket:brand-new")
        async with talking(stream.talk, tone(1.0, stream.rate_hz)):
            await stream.until(lambda: loudest(bytes(stream.played[-stream.frame * 3 :])) > 6000, "the echo")
        await stream.stop()
    record = await record_of(server.database, call)
    stats = record.of("stream.stats")[-1]
    assert (stats["bad"], stats["unknown"]) == (5, 1)
    assert record.reason == "caller_hangup"


async def test_sound_before_the_beginning_is_counted(server: ServerProcess) -> None:
    call = str(uuid.uuid4())
    async with aiohttp.ClientSession() as client:
        endpoint = await answered(client, server, TO, call, "POST")
        async with connected(client, endpoint, begins=False) as stream:
            await stream.talk(tone(0.04, stream.rate_hz))
            await stream.start(endpoint.headers)
            await stream.talk(tone(0.3, stream.rate_hz))
            await stream.stop()
    assert (await record_of(server.database, call)).of("stream.stats")[-1]["bad"] == 2


async def test_a_message_of_a_megabyte_ends_it(server: ServerProcess) -> None:
    async with calling(server) as (stream, call):
        await stream.socket.send_bytes(bytes(1_000_000))
        assert await stream.ended() == 1009
    assert (await record_of(server.database, call)).reason


async def test_a_line_that_is_cut_in_the_middle_of_speech_ends_the_call(server: ServerProcess) -> None:
    async with calling(server) as (stream, call):
        await stream.talk(tone(0.3, stream.rate_hz))
        assert stream.socket._conn is not None
        assert stream.socket._conn.transport is not None
        stream.socket._conn.transport.abort()
        record = await record_of(server.database, call)
    assert record.reason == "caller_hangup"
    assert record.of("leg.disconnected")[0]["cause"]


@pytest.mark.parametrize("speed", [2.0, 0.5, 1.005])
async def test_a_clock_that_is_not_ours(server: ServerProcess, speed: float) -> None:
    async with calling(server, "4930000001") as (stream, call):
        await stream.talk(tone(3.0, stream.rate_hz), speed=speed)
        await stream.until(lambda: len(stream.played) > stream.rate_hz, "the echo")
        await stream.stop()
    stats = (await record_of(server.database, call)).of("stream.stats")[-1]
    if speed == 2.0:
        assert stats["discarded"] > 0
    if speed == 0.5:
        assert stats["concealed"] > 0
    assert not stream.faults


async def test_a_websocket_for_no_account(server: ServerProcess) -> None:
    async with aiohttp.ClientSession() as client:
        with pytest.raises(aiohttp.WSServerHandshakeError, match="404"):
            await client.ws_connect(f"ws://127.0.0.1:{server.http_port}/ws/vonage/other")


async def test_the_conformance_kit_finds_nothing(server: ServerProcess) -> None:
    found = await check(answer_url(server), APPLICATION, SECRET, TO, 1.0)
    assert len(found) == 9
    assert not any(found.values()), found


def test_the_log_knows_no_secret_and_no_number(server: ServerProcess) -> None:
    assert SECRET not in server.log()
    assert "event=" + FROM not in server.log()
