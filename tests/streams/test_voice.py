"""The plain voice WebSocket against a real server: calls, drops and resumes, and what is refused."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import uuid
from collections.abc import Iterator
from typing import Any

import aiohttp
import numpy as np
import pytest

from sipserver.bus.once import MemoryOnce
from sipserver.gate.settings import GateSettings
from sipserver.gate.tokens import Claims, Tokens
from sipserver.streams.voice import MOST_KEPT_S, MOST_MESSAGES, VoiceLine
from tests.harness.records import record_of
from tests.harness.server import ServerProcess
from tests.harness.voice import HEAD, VoiceClient, voice_client

SECRET = "the secret of these tests, long enough"
PLAN = """
tenant: acme
flows:
  echo: [answer, {echo: {max_s: 60}}]
  digits: [answer, {collect: {digits: 2, timeout_s: 20, on: {"42": bye, none: bye, other: bye}}}]
  words: [answer, {say: "One two three four five six seven eight nine ten."}, {echo: {max_s: 60}}]
  bye: [hangup]
routes:
  - {match: {to: echo}, flow: echo}
  - {match: {to: digits}, flow: digits}
  - {match: {to: words}, flow: words}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    os.environ["TEST_TOKEN_SECRET"] = SECRET
    made = ServerProcess(
        tmp_path_factory.mktemp("voice"),
        {"acme.yaml": PLAN, "other.yaml": "tenant: other\nflows: {main: [answer, hangup]}\nroutes: [{flow: main}]\n"},
        {
            "gate": {"secret_env": "TEST_TOKEN_SECRET"},
            "streams": {"voice": {"resume_s": 2}},
            "speech": {"tts": {"espeak": {"vendor": "espeak", "words_per_minute": 150, "processes": 1}}},
        },
    )
    yield made.start()
    del os.environ["TEST_TOKEN_SECRET"]
    assert made.stop() == 0
    assert "Traceback" not in made.log()


def url(server: ServerProcess) -> str:
    return f"ws://127.0.0.1:{server.http_port}"


def token(to: str = "echo", **claims: object) -> str:
    return Tokens(SECRET.encode(), MemoryOnce()).issue(Claims("voice", to=to, from_user="anna", **claims))  # type: ignore[arg-type]


def noise(seconds: float, seed: int = 1) -> bytes:
    """Loud, and nowhere like itself: what is missing or comes twice is seen."""
    return np.random.default_rng(seed).integers(-9000, 9000, int(16_000 * seconds)).astype("<i2").tobytes()


async def echoed(client: VoiceClient, said: bytes) -> None:
    """All of it comes back, but for a few frames that were said before the step began; nothing is missing within."""
    await client.until(lambda: client.sound.endswith(said[-640:]), "the echo")
    assert said.endswith(bytes(client.sound))
    assert len(client.sound) >= len(said) - 10 * 640


async def test_a_caller_hears_themselves_sample_for_sample(server: ServerProcess) -> None:
    async with voice_client(url(server), token()) as client:
        await client.connect()
        said = noise(1.0)
        await client.speak(said)
        await echoed(client, said)
        await client.say("hangup")
        assert await client.ended() == 1000
    record = await record_of(server.database, client.call_id)
    assert (record.call_id, record.reason) == (client.call_id, "caller_hangup")
    assert record.of("call.started")[0]["from_uri"].startswith("sip:anna@")
    assert record.of("media.started")[0]["codec"] == "L16"


async def test_digits_and_the_end_by_the_server(server: ServerProcess) -> None:
    async with voice_client(url(server), token("digits")) as client:
        await client.connect()
        await client.say("dtmf", digits="42")
        assert await client.ended() == 1000
        assert client.of("hangup")
    assert (await record_of(server.database, client.call_id)).reason == "dialplan_hangup"


async def test_marks_tell_what_was_heard(server: ServerProcess) -> None:
    async with voice_client(url(server), token("words")) as client:
        await client.connect()
        await client.until(lambda: bool(client.of("mark")), "the mark after the words", 20)
        assert len(client.sound) > 16_000 * 2
        await client.say("hangup")
    stats = (await record_of(server.database, client.call_id)).of("stream.stats")[-1]
    assert stats["marks_played"] >= 1


async def test_a_line_that_breaks_in_the_middle_loses_nothing(server: ServerProcess) -> None:
    async with voice_client(url(server), token()) as client:
        await client.connect()
        said = noise(2.0)
        await client.speak(said[:20_000])
        client.break_line()
        await client.ended()
        await client.speak(said[20_000:30_080], pace_s=0.001)  # said while the line was down
        await client.come_back()
        await client.speak(said[30_080:])
        await echoed(client, said)
        await client.say("hangup")
    record = await record_of(server.database, client.call_id)
    assert "stream.dropped" in record.kinds
    assert record.of("stream.resumed")[0]["after_ms"] < 2000
    assert record.reason == "caller_hangup"


async def test_words_go_on_where_they_broke_off(server: ServerProcess) -> None:
    async with voice_client(url(server), token("words")) as client:
        await client.connect()
        await client.until(lambda: len(client.sound) > 16_000, "words", 20)
        client.break_line()
        await client.ended()
        await client.come_back()
        await client.until(lambda: bool(client.of("mark")), "the mark after the words", 20)
        assert len(client.sound) > 16_000 * 2 * 2
        await client.say("hangup")
    assert len((await record_of(server.database, client.call_id)).of("stream.resumed")) == 1


async def test_one_that_does_not_come_back_has_left(server: ServerProcess) -> None:
    async with voice_client(url(server), token()) as client:
        await client.connect()
        await client.speak(noise(0.2))
        client.break_line()
        record = await record_of(server.database, client.call_id)
    assert record.reason == "caller_hangup"
    assert record.of("leg.disconnected")[0]["cause"] == "the client did not come back"


async def test_only_the_key_opens_a_call_that_lives(server: ServerProcess) -> None:
    async with voice_client(url(server), token()) as client:
        await client.connect()
        for query in ("", "?resume=wrong", f"?token={token()}"):
            async with aiohttp.ClientSession() as session:
                with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                    await session.ws_connect(f"{url(server)}/ws/voice/{client.call_id}{query}")
        await client.speak(said := noise(0.2))
        await echoed(client, said)


async def test_a_second_connection_with_the_key_takes_the_call(server: ServerProcess) -> None:
    async with voice_client(url(server), token()) as client:
        await client.connect()
        first = client.socket
        assert first is not None
        other = VoiceClient(client._client, url(server), "", client.call_id)
        other.key = client.key
        await other.come_back()
        assert await client.ended() == 4409
        await other.speak(said := noise(0.3))
        await echoed(other, said)
        await other.say("hangup")
        await other.close()
    assert (await record_of(server.database, client.call_id)).reason == "caller_hangup"


@pytest.mark.parametrize("case", ["no token", "nonsense", "used", "other purpose", "other call", "no uuid"])
async def test_who_may_not_call(server: ServerProcess, case: str) -> None:
    good = token()
    other = Tokens(SECRET.encode(), MemoryOnce()).issue(Claims("webrtc", to="echo"))
    query = {"nonsense": "?token=nonsense", "used": f"?token={good}", "other purpose": f"?token={other}"}.get(case, "")
    if case == "other call":
        query = f"?token={token(call_id=str(uuid.uuid4()))}"
    call_id = "x" if case == "no uuid" else str(uuid.uuid4())
    if case == "used":
        async with voice_client(url(server), good) as client:
            await client.connect()
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(f"{url(server)}/ws/voice/{call_id}{query}")
    assert refused.value.status == (400 if case == "no uuid" else 403)


async def test_a_token_of_a_tenant_calls_that_tenant_alone(server: ServerProcess) -> None:
    async with voice_client(url(server), token("echo", tenant="other")) as client:
        await client.connect()
        assert await client.ended() == 1000
    assert (await record_of(server.database, client.call_id)).reason == "dialplan_hangup"


async def test_a_user_that_nobody_has_is_told(server: ServerProcess) -> None:
    async with voice_client(url(server), token("nobody", tenant="acme")) as client:
        await client.connect()
        await client.ended()
        assert client.of("hangup")[0]["code"] == 404
    assert (await record_of(server.database, client.call_id)).reason == "no_route"


@pytest.mark.parametrize("first", ["not json", b"\0" * 648, '{"type": "ack"}', "[]"])
async def test_what_cannot_begin_a_call(server: ServerProcess, first: str | bytes) -> None:
    async with aiohttp.ClientSession() as session:
        address = f"{url(server)}/ws/voice/{uuid.uuid4()}?token={token()}"
        async with session.ws_connect(address) as socket:
            await (socket.send_bytes(first) if isinstance(first, bytes) else socket.send_str(first))
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
            assert socket.close_code == 4400


async def test_what_makes_no_sense_is_counted_and_the_call_goes_on(server: ServerProcess) -> None:
    async with voice_client(url(server), token()) as client:
        await client.connect()
        assert client.socket is not None
        for bad in ("not json", '{"type": "ack", "received": -1}', '{"type": "ack", "received": true}'):
            await client.socket.send_str(bad)
        for worse in (b"", b"\0" * 7, HEAD.pack(0) + b"\0", HEAD.pack(0) + bytes(3202)):
            await client.socket.send_bytes(worse)
        await client.say("brand-new")
        await client.speak(said := noise(0.3))
        await echoed(client, said)
        await client.say("hangup")
    stats = (await record_of(server.database, client.call_id)).of("stream.stats")[-1]
    assert (stats["bad"], stats["unknown"]) == (7, 1)


async def test_pings_are_answered_and_sound_is_acknowledged(server: ServerProcess) -> None:
    async with voice_client(url(server), token()) as client:
        await client.connect()
        await client.say("ping", at=12)
        await client.until(lambda: client.of("pong") == [{"type": "pong", "at": 12}], "the pong")
        await client.speak(noise(1.2), pace_s=0.005)
        await client.until(lambda: bool(client.of("ack")), "an ack")
        assert client.of("ack")[0]["received"] >= 8000


async def test_sound_as_json_both_ways(server: ServerProcess) -> None:
    async with voice_client(url(server), token()) as client:
        await client.connect(sound="json")
        said = noise(0.5)
        for start in range(0, len(said), 640):
            text = base64.b64encode(said[start : start + 640]).decode()
            await client.say("media", payload=text, **({} if start else {"at": 0}))
            await asyncio.sleep(0.02)  # a microphone's pace
        await echoed(client, said)
        for bad in ("?", "AAA", "", 7, base64.b64encode(b"\0").decode()):
            await client.say("media", payload=bad)
        await client.say("stop")
        assert await client.ended() == 1000
    record = await record_of(server.database, client.call_id)
    assert record.of("stream.stats")[-1]["bad"] == 5
    assert record.reason == "caller_hangup"


async def test_a_message_of_a_megabyte_ends_the_call(server: ServerProcess) -> None:
    async with voice_client(url(server), token()) as client:
        await client.connect()
        assert client.socket is not None
        await client.socket.send_bytes(bytes(1_000_000))
        assert await client.ended() == 1009
    assert (await record_of(server.database, client.call_id)).reason


class Wire:
    """Stands where a connection is."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.sent_bytes, self.droppable = 0, False

    def send(self, message: str | bytes, *, droppable: bool = False) -> bool:
        self.sent_bytes += len(message)
        self.droppable = droppable
        self.sent.append(json.loads(message) if isinstance(message, str) else HEAD.unpack_from(message)[0])
        return True


def test_what_was_said_while_the_client_was_away_is_told_when_it_is_back() -> None:
    line, wire = VoiceLine(0), Wire()
    line.play(bytes(640))
    line.mark("m1")
    line.clear()
    line.connection = wire  # type: ignore[assignment]
    line.resend(received=320, said=0)
    assert wire.sent == [{"type": "clear", "n": 2}], "what a clear threw away is not sent again"
    line.play(bytes(640))
    line.mark("m2")
    wire.sent.clear()
    line.resend(received=320, said=2)
    assert wire.sent == [320, {"type": "mark", "n": 3, "name": "m2"}]
    wire.sent.clear()
    line.resend(received=640, said=3)
    assert wire.sent == []


@pytest.mark.parametrize("in_json", [False, True])
def test_what_is_kept_for_a_client_that_never_acknowledges_fits_into_the_queue(in_json: bool) -> None:
    line, wire = VoiceLine(0, in_json=in_json), Wire()
    for _ in range(2_000):
        line.play(bytes(640))
    line.connection = wire  # type: ignore[assignment]
    line.resend(0, 0)
    assert line.replayed_samples == MOST_KEPT_S * 16_000
    assert wire.sent_bytes < 4 * GateSettings().queue_bytes + 16_384, "the kernel takes the rest"
    for number in range(5_000):
        line.mark(f"m{number}")
    wire.sent.clear()
    line.resend(0, 0)
    assert len(wire.sent) == MOST_MESSAGES


def test_sound_is_not_dropped_right_after_a_resume() -> None:
    line, wire = VoiceLine(0), Wire()
    line.connection = wire  # type: ignore[assignment]
    line.play(bytes(640))
    assert wire.droppable, "a slow client loses sound"
    line.resend(320, 0)
    line.play(bytes(640))
    assert not wire.droppable
    for _ in range(100):
        line.play(bytes(640))
    assert wire.droppable
