"""Calls of Twilio against a real server, by a Twilio that checks the wire."""

from __future__ import annotations

import asyncio
import audioop
import base64
import json
import math
import os
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from twilio.request_validator import RequestValidator

from tests.fakes.until import until
from tests.harness.records import record_of, records
from tests.harness.server import ServerProcess
from tests.streams.talking import talking
from tools.conformance.twilio import SILENCE, TwilioCall, TwiML, ask_webhook, check, connected, sid

ACCOUNT, TOKEN = "AC" + "0123456789abcdef" * 2, "12345 is the auth token"
TO, FROM = "+4930123456", "+493098765432"
PLAN = """
tenant: acme
variables: {greeting: Good day}
flows:
  echo: [answer, {echo: {max_s: 60}}]
  recorded: [answer, {record: {stereo: true}}, {echo: {max_s: 60}}]
  menu:
    - answer
    - collect: {say: Press a key., digits: 2, timeout_s: 20, on: {"42": bye, none: bye, other: bye}}
  words: [answer, {say: One two three four five six seven eight nine ten eleven twelve.}, {echo: {max_s: 60}}]
  bye: [{say: Good bye.}, hangup]
routes:
  - {match: {to: "+4930123456"}, flow: echo}
  - {match: {to: "+4930000001"}, flow: recorded}
  - {match: {to: "+4930000002"}, flow: menu}
  - {match: {to: "+4930000003"}, flow: words}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    os.environ["TEST_TWILIO_TOKEN"] = TOKEN
    streams = {
        "twilio": [{"name": "main", "account_sid": ACCOUNT, "auth_token_env": "TEST_TWILIO_TOKEN"}],
        "stalled_s": 0.5,
    }
    tts = {"espeak": {"vendor": "espeak", "words_per_minute": 150, "processes": 1}}
    made = ServerProcess(
        tmp_path_factory.mktemp("twilio"), {"acme.yaml": PLAN}, {"streams": streams, "speech": {"tts": tts}}
    )
    with_process = made.start()
    yield with_process
    del os.environ["TEST_TWILIO_TOKEN"]
    assert made.stop() == 0
    assert "Traceback" not in made.log()


def webhook(server: ServerProcess) -> str:
    return f"http://127.0.0.1:{server.http_port}/webhooks/twilio/main/voice"


async def answered(client: aiohttp.ClientSession, server: ServerProcess, to: str = TO) -> TwiML:
    fields = {"CallSid": sid("CA"), "From": FROM, "To": to, "CallerName": "ANNA"}
    status, text = await ask_webhook(client, webhook(server), ACCOUNT, TOKEN, fields)
    assert status == 200, text
    return TwiML.parse(text, fields["CallSid"])


@asynccontextmanager
async def calling(server: ServerProcess, to: str = TO) -> AsyncIterator[TwilioCall]:
    async with (
        aiohttp.ClientSession() as client,
        connected(client, await answered(client, server, to), ACCOUNT) as call,
    ):
        yield call


def kinds(server: ServerProcess, call_sid: str) -> list[str]:
    """Of the events so far."""
    return [kind for record in records(server.database, call_sid) for kind in record.kinds]


def tone(seconds: float, hz: float = 440.0) -> bytes:
    count = round(8000 * seconds)
    samples = [round(8000 * math.sin(2 * math.pi * hz * at / 8000)) for at in range(count)]
    return audioop.lin2ulaw(struct.pack(f"<{count}h", *samples), 2)


def level(sound: bytes) -> int:
    return audioop.rms(audioop.ulaw2lin(sound, 2), 2) if sound else 0


# --- the webhook ------------------------------------------------------------------------------------------------------


def test_the_signature_that_twilio_publishes() -> None:
    """The example of "Validating Signatures from Twilio": its URL, its fields, its token, its signature."""
    fields = {
        "CallSid": "CA1234567890ABCDE",
        "Caller": "+14158675309",
        "Digits": "1234",
        "From": "+14158675309",
        "To": "+18005551212",
    }
    url = "https://mycompany.com/myapp.php?foo=1&bar=2"
    validator = RequestValidator("12345")
    assert validator.compute_signature(url, fields) == "RSOYDt4T1cUTdK1PDd93/VVr8B8="
    assert validator.validate(url, fields, "RSOYDt4T1cUTdK1PDd93/VVr8B8=")


async def test_the_webhook_connects_a_stream_with_a_one_time_token(server: ServerProcess) -> None:
    async with aiohttp.ClientSession() as client:
        twiml = await answered(client, server)
        assert twiml.url == f"ws://127.0.0.1:{server.http_port}/ws/twilio/main"
        assert twiml.parameters["CallerName"] == "ANNA"
        assert (await answered(client, server)).parameters["token"] != twiml.parameters["token"]


@pytest.mark.parametrize("wrong", ["token", "account", "none", "other url"])
async def test_what_twilio_did_not_sign_is_refused_and_told_nothing(server: ServerProcess, wrong: str) -> None:
    fields = {"CallSid": sid("CA"), "From": FROM, "To": TO}
    async with aiohttp.ClientSession() as client:
        if wrong == "none":
            async with client.post(webhook(server), data=fields) as answer:
                status, text = answer.status, await answer.text()
        else:
            account = "AC" + "f" * 32 if wrong == "account" else ACCOUNT
            token = TOKEN + "!" if wrong == "token" else TOKEN
            signed = "https://elsewhere.example/voice" if wrong == "other url" else ""
            status, text = await ask_webhook(client, webhook(server), account, token, fields, signed)
    assert status == 403
    assert "Stream" not in text
    assert TOKEN not in text


# --- the stream -------------------------------------------------------------------------------------------------------


async def test_a_caller_hears_themselves_and_hangs_up(server: ServerProcess) -> None:
    async with calling(server) as call:
        second = tone(1.0)
        async with talking(call.talk, second) as words:
            await call.until(lambda: len(call.played) >= len(second), "a second of the echo")
        assert bytes(call.played) in words, "nothing is missing or changed once it has begun"
        await call.stop()
    assert not call.faults
    record = await record_of(server.database, call.call_sid)
    assert (record.reason, record.answered) == ("caller_hangup", True)
    started = record.of("call.started")[0]
    assert started["to_uri"].startswith(f"sip:{TO}@")
    assert started["from_uri"].startswith(f"sip:{FROM}@")
    assert record.of("media.started")[0]["codec"] == "PCMU"
    stats = record.of("stream.stats")[-1]
    assert stats["received"] >= stats["sent"] >= 50


async def test_the_echo_through_the_pipeline_is_whole(server: ServerProcess) -> None:
    async with calling(server, "+4930000001") as call:
        second = tone(1.0)
        async with talking(call.talk, second):
            await call.until(lambda: len(call.played) > 1.8 * len(second), "the echo")
        assert level(bytes(call.played[-1600:])) > 3000
        await call.stop()
    assert not call.faults
    record = await record_of(server.database, call.call_sid)
    assert record.recording_status == "complete"
    assert len(await asyncio.to_thread(Path(record.recording).read_bytes)) > 1.8 * 2 * 2 * 16_000


async def test_digits_reach_the_dialplan_and_the_server_hangs_up(server: ServerProcess) -> None:
    async with calling(server, "+4930000002") as call:
        await call.until(lambda: "media" in call.events, "the question")
        for digit in "42":
            await call.digit(digit)
        assert await call.ended(20) == 1000
    assert not call.faults
    record = await record_of(server.database, call.call_sid)
    assert record.reason == "dialplan_hangup"
    assert [each["method"] for each in record.of("digit.received")] == ["stream", "stream"]


async def test_marks_come_after_what_was_said_and_sound_is_paced(server: ServerProcess) -> None:
    async with calling(server, "+4930000003") as call:
        await call.until(lambda: any(played for _, played in call.marks), "the mark after the words", 20)
        said_s = len(call.played) / 8000
        assert said_s > 2
        await call.stop()
    gaps = [later - earlier for earlier, later in zip(call.played_at_s, call.played_at_s[1:], strict=False)]
    assert sum(gap > 0.06 for gap in gaps) < len(gaps) * 0.1, "the caller hears it without holes"
    assert not call.faults
    record = await record_of(server.database, call.call_sid)
    assert record.of("stream.stats")[-1]["marks_played"] >= 1
    assert any(each["summary"].startswith("mark") for each in record.of("stream.message"))


async def test_silence_of_the_peer_is_told(server: ServerProcess) -> None:
    async with calling(server) as call:
        await call.talk(SILENCE * 10)
        await until(lambda: "media.stalled" in kinds(server, call.call_sid), "the silence")
        await call.talk(SILENCE * 10)
        await call.stop()
    record = await record_of(server.database, call.call_sid)
    assert "media.recovered" in record.kinds


# --- faults -----------------------------------------------------------------------------------------------------------


async def test_a_token_that_was_used_is_refused(server: ServerProcess) -> None:
    async with aiohttp.ClientSession() as client:
        twiml = await answered(client, server)
        async with connected(client, twiml, ACCOUNT) as call:
            await call.talk(tone(0.2))
        async with connected(client, twiml, ACCOUNT) as again:
            assert await again.ended() == 4403


@pytest.mark.parametrize("parameters", [{}, {"token": "nonsense"}])
async def test_a_stream_without_a_good_token_is_refused(server: ServerProcess, parameters: dict[str, str]) -> None:
    async with aiohttp.ClientSession() as client:
        twiml = TwiML((await answered(client, server)).url, parameters)
        async with connected(client, twiml, ACCOUNT) as call:
            assert await call.ended() == 4403
        async with connected(client, await answered(client, server), "AC" + "e" * 32) as foreign:
            assert await foreign.ended() == 4403


async def test_what_makes_no_sense_is_counted_and_the_call_goes_on(server: ServerProcess) -> None:
    async with calling(server) as call:
        for text in ("not json", "[]", '{"event": "media"}', "{}"):
            await call.socket.send_str(text)
        await call.say("media", media={"payload": "%%%"})
        await call.say("brand-new")
        own, call.stream_sid = call.stream_sid, sid("MZ")
        await call.media(tone(0.02))
        call.stream_sid = own
        async with talking(call.talk, tone(1.0)):
            await call.until(lambda: level(bytes(call.played[-800:])) > 3000, "the echo")
        await call.stop()
    record = await record_of(server.database, call.call_sid)
    stats = record.of("stream.stats")[-1]
    assert (stats["bad"], stats["unknown"]) == (6, 1)
    assert record.reason == "caller_hangup"


async def test_sound_before_the_start_is_counted(server: ServerProcess) -> None:
    async with aiohttp.ClientSession() as client:
        twiml = await answered(client, server)
        async with connected(client, twiml, ACCOUNT, begins=False) as call:
            await call.media(tone(0.02))
            await call.start(twiml.parameters)
            await call.talk(tone(0.3))
            await call.stop()
    assert (await record_of(server.database, call.call_sid)).of("stream.stats")[-1]["bad"] == 1


async def test_binary_ends_it(server: ServerProcess) -> None:
    async with calling(server) as call:
        await call.socket.send_bytes(tone(0.02))
        assert await call.ended() == 1003
    assert (await record_of(server.database, call.call_sid)).reason


async def test_a_message_of_a_megabyte_ends_it(server: ServerProcess) -> None:
    async with calling(server) as call:
        await call.say("media", media={"payload": base64.b64encode(bytes(1_000_000)).decode()})
        assert await call.ended() == 1009
    assert (await record_of(server.database, call.call_sid)).reason


async def test_a_line_that_is_cut_in_the_middle_of_speech_ends_the_call(server: ServerProcess) -> None:
    async with calling(server) as call:
        await call.talk(tone(0.3))
        assert call.socket._conn is not None
        assert call.socket._conn.transport is not None
        call.socket._conn.transport.abort()
        record = await record_of(server.database, call.call_sid)
    assert record.reason == "caller_hangup"
    assert record.of("leg.disconnected")[0]["cause"]


@pytest.mark.parametrize("speed", [2.0, 0.5, 1.005])
async def test_a_clock_that_is_not_ours(server: ServerProcess, speed: float) -> None:
    async with calling(server, "+4930000001") as call:
        await call.talk(tone(3.0), speed=speed)
        await call.until(lambda: len(call.played) > 8000, "the echo")
        await call.stop()
    record = await record_of(server.database, call.call_sid)
    stats = record.of("stream.stats")[-1]
    if speed == 2.0:
        assert stats["discarded"] > 0
    if speed == 0.5:
        assert stats["concealed"] > 0
    assert not call.faults


async def test_a_stream_for_no_account(server: ServerProcess) -> None:
    async with aiohttp.ClientSession() as client:
        url = f"ws://127.0.0.1:{server.http_port}/ws/twilio/other"
        with pytest.raises(aiohttp.WSServerHandshakeError, match="404"):
            await client.ws_connect(url)


async def test_the_conformance_kit_finds_nothing(server: ServerProcess) -> None:
    found = await check(webhook(server), ACCOUNT, TOKEN, TO, 1.0)
    assert len(found) == 9
    assert not any(found.values()), found


def test_the_log_knows_no_secret(server: ServerProcess) -> None:
    log = server.log()
    assert TOKEN not in log
    assert json.dumps(FROM) not in log
