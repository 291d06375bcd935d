"""The words of each protocol that bots are spoken to in, and what their answers mean. Pure."""

from __future__ import annotations

import contextlib
import json
import uuid
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.calls.bots import BotOrder
from sipserver.errors import BadPayload
from sipserver.streams.bots.asterisk import XOFF_FRAMES, XON_FRAMES, AsteriskDialect
from sipserver.streams.bots.client import DIALECTS
from sipserver.streams.bots.contract import (
    Clear,
    Dialect,
    Direction,
    Drained,
    HangUp,
    Mark,
    Nothing,
    Pause,
    Sound,
    Status,
    Unknown,
)
from sipserver.streams.bots.pcm import PcmDialect
from sipserver.streams.bots.twilio import TwilioDialect
from sipserver.streams.bots.vonage import VonageDialect


def order(protocol: str = "twilio", **options: Any) -> BotOrder:
    facts = {"call_id": "call-1", "tenant": "acme", "from_user": "alice", "to_user": "demo", "both": True}
    return BotOrder(url="ws://127.0.0.1/bot", protocol=protocol, **{**facts, **options})


def told(message: object) -> dict[str, Any]:
    assert isinstance(message, str)
    said = json.loads(message)
    assert isinstance(said, dict)
    return said


# --- Twilio -----------------------------------------------------------------------------------------------------------


def test_twilio_counts_messages_of_all_kinds_and_chunks_of_each_track() -> None:
    dialect = TwilioDialect(order(tracks="both", both=False))
    connected, start = map(told, dialect.opening())
    assert "sequenceNumber" not in connected
    assert start["start"]["tracks"] == ["inbound", "outbound"]
    said = [
        told(dialect.sound(b"\xff" * 160, "inbound", 20)),
        told(dialect.sound(b"\xfe" * 160, "outbound", 20)),
        told(dialect.sound(b"\xff" * 160, "inbound", 40)),
        told(dialect.digit("9")),
        told(dialect.marked("m", played=True)),
        told(dialect.closing("")[0]),
    ]
    assert [message["sequenceNumber"] for message in said] == ["2", "3", "4", "5", "6", "7"]
    assert [message["event"] for message in said] == ["media", "media", "media", "dtmf", "mark", "stop"]
    assert [(each["media"]["track"], each["media"]["chunk"]) for each in said[:3]] == [
        ("inbound", "1"),
        ("outbound", "1"),
        ("inbound", "2"),
    ]
    assert said[2]["media"]["timestamp"] == "40"
    assert said[0]["media"]["payload"] == b64encode(b"\xff" * 160).decode()
    assert {message["streamSid"] for message in said} == {start["streamSid"]}


def test_twilios_sids_of_a_call_and_a_tenant_stay_the_same_and_streams_differ() -> None:
    first, second, other = TwilioDialect(order()), TwilioDialect(order()), TwilioDialect(order(call_id="call-2"))
    assert (first.call_sid, first.account_sid) == (second.call_sid, second.account_sid)
    assert first.stream_sid != second.stream_sid
    assert first.call_sid != other.call_sid


def test_twilios_mark_comes_back_whether_it_was_played_or_cleared() -> None:
    dialect = TwilioDialect(order())
    assert told(dialect.marked("m", played=True))["mark"] == told(dialect.marked("m", played=False))["mark"]


def test_what_twilios_bot_says() -> None:
    dialect = TwilioDialect(order())
    ours = dialect.stream_sid
    assert dialect.read(json.dumps({"event": "media", "streamSid": ours, "media": {"payload": "/w=="}})) == Sound(
        b"\xff"
    )
    assert dialect.read(json.dumps({"event": "mark", "streamSid": ours, "mark": {"name": "a"}})) == Mark("a")
    assert dialect.read(json.dumps({"event": "clear", "streamSid": ours})) == Clear()
    assert dialect.read('{"event": "clear"}') == Clear()
    assert dialect.read('{"event": "sing"}') == Unknown()


# --- Vonage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate_hz", "wire"), [(None, "l16_16"), (8000, "l16_8"), (16_000, "l16_16"), (24_000, "l16_24")]
)
def test_vonage_tells_its_rate_and_headers_flat(rate_hz: int | None, wire: str) -> None:
    dialect = VonageDialect(order(rate_hz=rate_hz, parameters={"customer": "17", "event": "mine"}))
    assert dialect.wire == wire
    assert told(dialect.opening()[0]) == {
        "event": "websocket:connected",
        "content-type": f"audio/l16;rate={rate_hz or 16_000}",
        "customer": "17",
    }


def test_what_vonage_says_and_what_its_bot_says() -> None:
    dialect = VonageDialect(order())
    assert dialect.sound(b"\x01\x02", "inbound", 0) == b"\x01\x02"
    assert told(dialect.digit("5"))["event"] == "websocket:dtmf"
    assert told(dialect.digit("5"))["digit"] == "5"
    assert dialect.read(b"\x01\x02") == Sound(b"\x01\x02")
    assert dialect.read('{"action": "clear"}') == Clear()
    assert told(dialect.cleared()) == {"event": "websocket:cleared"}
    asked = dialect.read('{"action": "notify", "payload": {"a": [1, "b"]}}')
    assert isinstance(asked, Mark)
    assert told(dialect.marked(asked.name, played=True)) == {
        "event": "websocket:notify",
        "payload": {"a": [1, "b"]},
    }
    assert dialect.marked(asked.name, played=False) is None
    assert dialect.read('{"action": "sing"}') == Unknown()


# --- Asterisk ---------------------------------------------------------------------------------------------------------


def test_asterisk_begins_in_text() -> None:
    (start,) = AsteriskDialect(order()).opening()
    assert isinstance(start, str)
    word, *facts = start.split(" ")
    said = dict(fact.split(":", 1) for fact in facts)
    assert word == "MEDIA_START"
    assert uuid.UUID(said.pop("connection_id"))
    assert said == {
        "channel": "WebSocket/sipserver/call-1",
        "channel_id": "call-1",
        "format": "ulaw",
        "optimal_frame_size": "160",
        "ptime": "20",
    }


def test_asterisk_begins_in_json() -> None:
    (start,) = DIALECTS["asterisk-json"](order(rate_hz=16_000, parameters={"a": "b"})).opening()
    said = told(start)
    assert (said["event"], said["format"], said["optimal_frame_size"]) == ("MEDIA_START", "slin16", 640)
    assert said["channel_variables"] == {"a": "b"}


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("ANSWER", Nothing()),
        ("HANGUP", HangUp()),
        ("START_MEDIA_BUFFERING", Nothing()),
        ("FLUSH_MEDIA", Clear()),
        ("PAUSE_MEDIA", Pause(True)),
        ("CONTINUE_MEDIA", Pause(False)),
        ("GET_STATUS", Status()),
        ("REPORT_QUEUE_DRAINED", Drained()),
        ("SET_MEDIA_DIRECTION in", Direction(speaks=False, hears=True)),
        ("SET_MEDIA_DIRECTION out", Direction(speaks=True, hears=False)),
        ("SET_MEDIA_DIRECTION up", Unknown()),
        ("SING", Unknown()),
    ],
)
def test_asterisks_commands_in_both_forms(text: str, asked: object) -> None:
    command, _, direction = text.partition(" ")
    assert AsteriskDialect(order()).read(text) == asked
    as_json = {"command": command, **({"direction": direction} if direction else {})}
    assert DIALECTS["asterisk-json"](order()).read(json.dumps(as_json)) == asked


def test_asterisk_tells_when_buffered_media_and_marks_were_played() -> None:
    text, as_json = AsteriskDialect(order()), AsteriskDialect(order(), as_json=True)
    buffered, mark = text.read("STOP_MEDIA_BUFFERING id-1"), text.read("MARK_MEDIA")
    assert isinstance(buffered, Mark)
    assert isinstance(mark, Mark)
    assert buffered.pad
    assert text.marked(buffered.name, played=True) == "MEDIA_BUFFERING_COMPLETED id-1"
    assert text.marked(mark.name, played=True) == "MEDIA_MARK_PROCESSED"
    assert text.marked(buffered.name, played=False) is None
    assert told(as_json.marked(buffered.name, played=True)) == {
        "event": "MEDIA_BUFFERING_COMPLETED",
        "channel_id": "call-1",
        "correlation_id": "id-1",
    }


def test_asterisk_asks_for_a_rest_once_and_ends_it_once() -> None:
    dialect = AsteriskDialect(order())
    levels = [0, XOFF_FRAMES - 1, XOFF_FRAMES, XOFF_FRAMES + 50, XON_FRAMES, XON_FRAMES - 1, 10, XOFF_FRAMES]
    assert [dialect.level(frames) for frames in levels] == [
        *(None, None, "MEDIA_XOFF", None, None, "MEDIA_XON", None, "MEDIA_XOFF"),
    ]


def test_asterisks_status_tells_the_queue() -> None:
    dialect = AsteriskDialect(order(), as_json=True)
    dialect.read('{"command": "START_MEDIA_BUFFERING"}')
    status = told(dialect.status(17, paused=True))
    assert (status["event"], status["queue_length"]) == ("STATUS", 17)
    assert (status["bulk_media"], status["media_paused"], status["queue_full"]) == (True, True, False)
    assert dialect.digit("3") == json.dumps({"event": "DTMF_END", "channel_id": "call-1", "digit": "3"})
    assert AsteriskDialect(order()).digit("3") == "DTMF_END digit:3"


# --- plain PCM --------------------------------------------------------------------------------------------------------


def test_plain_pcm() -> None:
    dialect = PcmDialect(order(parameters={"a": "b"}))
    start = told(dialect.opening()[0])
    assert (start["rate_hz"], start["from"], start["to"], start["parameters"]) == (16_000, "alice", "demo", {"a": "b"})
    assert dialect.read(b"\x01\x02") == Sound(b"\x01\x02")
    assert dialect.read('{"event": "mark", "name": "m"}') == Mark("m")
    assert dialect.read('{"event": "clear"}') == Clear()
    assert dialect.read('{"event": "hangup"}') == HangUp()
    assert told(dialect.marked("m", played=False)) == {"event": "mark", "name": "m", "played": False}
    assert told(dialect.closing("why")[0]) == {"event": "stop", "reason": "why"}
    assert told(dialect.digit("#")) == {"event": "digit", "digit": "#"}


# --- whatever comes ---------------------------------------------------------------------------------------------------

BINARY = {"vonage", "asterisk", "asterisk-json", "pcm"}


@pytest.mark.parametrize("protocol", DIALECTS)
def test_what_is_none_of_the_protocol(protocol: str) -> None:
    dialect: Dialect = DIALECTS[protocol](order(protocol))
    for message in ("", "{", "[1]", "17", "null", "{}", "\x00", b""):
        with pytest.raises(BadPayload):
            dialect.read(message)
    if protocol not in BINARY:
        with pytest.raises(BadPayload):
            dialect.read(b"\x01\x02")
    elif dialect.wire != "mulaw8":
        with pytest.raises(BadPayload):
            dialect.read(b"\x01\x02\x03")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_KEYS = st.sampled_from(["event", "media", "mark", "payload", "name", "streamSid", "action", "command", "direction"])
_WORDS = st.sampled_from(["media", "mark", "clear", "notify", "hangup", "MARK_MEDIA", "SET_MEDIA_DIRECTION"])


@pytest.mark.parametrize("protocol", DIALECTS)
@given(message=st.text(max_size=80) | st.binary(max_size=80) | st.dictionaries(_KEYS, _WORDS | _JSON).map(json.dumps))
def test_any_message_is_read_or_is_a_bad_payload(protocol: str, message: str | bytes) -> None:
    with contextlib.suppress(BadPayload):
        DIALECTS[protocol](order(protocol)).read(message)
