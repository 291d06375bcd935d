"""Vonage's words, as published."""

from __future__ import annotations

import json

import pytest

from sipserver.bus.once import MemoryOnce
from sipserver.errors import BadPayload
from sipserver.gate.tokens import Claims, Tokens
from sipserver.streams import vonage_messages as messages


def test_the_first_message_has_the_headers_beside_the_rest() -> None:
    said = {
        "event": "websocket:connected",
        "content-type": "audio/l16;rate=16000",
        "language": "en-GB",
        "age": 40,
        "enable_auditing": False,
    }
    read = messages.parse(json.dumps(said))
    assert read == messages.Connected(16_000, {"language": "en-GB", "age": "40", "enable_auditing": "false"})


@pytest.mark.parametrize(("rate_hz", "size"), [(8000, 320), (16_000, 640), (24_000, 960)])
def test_a_frame_is_20_ms(rate_hz: int, size: int) -> None:
    assert messages.frame_bytes(rate_hz) == size
    said = json.dumps({"event": "websocket:connected", "content-type": f"audio/l16; rate={rate_hz}"})
    assert messages.parse(said) == messages.Connected(rate_hz)


def test_digits_notices_and_what_is_new() -> None:
    assert messages.parse('{"event":"websocket:dtmf","digit":"5","duration":260}') == messages.Dtmf("5")
    notified = messages.parse('{"event":"websocket:notify","payload":{"name":"m1"}}')
    assert notified == messages.Notified("m1")
    assert messages.parse('{"event":"websocket:cleared"}') == messages.Cleared()
    assert messages.parse('{"event":"websocket:later"}') == messages.Unknown("websocket:later")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        "{}",
        '{"event":7}',
        "[" * 100_000,
        '{"event":"websocket:dtmf"}',
        '{"event":"websocket:dtmf","digit":"55"}',
        '{"event":"websocket:notify","payload":{"other":1}}',
        '{"event":"websocket:notify","payload":"m1"}',
        '{"event":"websocket:connected"}',
        '{"event":"websocket:connected","content-type":"audio/l16;rate=44100"}',
        '{"event":"websocket:connected","content-type":"audio/mulaw;rate=8000"}',
    ],
)
def test_what_is_no_message(text: str) -> None:
    with pytest.raises(BadPayload):
        messages.parse(text)


def test_what_we_say() -> None:
    assert json.loads(messages.CLEAR) == {"action": "clear"}
    assert json.loads(messages.notify("m1")) == {"action": "notify", "payload": {"name": "m1"}}


def test_a_token_fits_into_the_headers_that_vonage_takes() -> None:
    """A number of 15 digits each, a long account's name, and the uuid of the call."""
    tokens = Tokens(bytes(32), MemoryOnce())
    claims = Claims(
        "vonage",
        to="+123456789012345",
        from_user="+123456789012345",
        trunk="an-account-with-a-name",
        serial="aaaaaaaa-bbbb-cccc-dddd-0123456789ab",
    )
    (action,) = messages.websocket("wss://voice.example/ws/vonage/main", 16_000, tokens.issue(claims))
    (endpoint,) = action["endpoint"]
    assert action["action"] == "connect"
    assert endpoint["content-type"] == "audio/l16;rate=16000"
    assert len(json.dumps(endpoint["headers"])) <= messages.MOST_HEADER_BYTES
    with pytest.raises(ValueError, match="512"):
        messages.websocket("wss://voice.example/", 16_000, "x" * 600)


@pytest.mark.parametrize(
    ("to", "endpoint"),
    [
        ("+493012345678", {"type": "phone", "number": "493012345678"}),
        ("00493012345678", {"type": "phone", "number": "493012345678"}),
        ("sip:+493012345678@main.vonage", {"type": "phone", "number": "493012345678"}),
        ("sip:200@pbx.example", {"type": "sip", "uri": "sip:200@pbx.example"}),
        ("sips:200@pbx.example", {"type": "sip", "uri": "sips:200@pbx.example"}),
    ],
)
def test_where_a_target_is(to: str, endpoint: dict[str, str]) -> None:
    assert messages.endpoint_of(to, "main.vonage") == endpoint


@pytest.mark.parametrize("to", ["", "200", "anna", "sip:anna@main.vonage", "+49 30 123", "sip:"])
def test_what_vonage_cannot_call(to: str) -> None:
    with pytest.raises(ValueError, match="digits"):
        messages.endpoint_of(to, "main.vonage")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("started", 0),
        ("ringing", 0),
        ("answered", 200),
        ("busy", 486),
        ("timeout", 480),
        ("unanswered", 480),
        ("rejected", 603),
        ("failed", 503),
        ("cancelled", 487),
        ("completed", 480),
        ("new-status", 0),
    ],
)
def test_what_a_status_means(status: str, code: int) -> None:
    assert messages.reached(status) == code


def test_somebody_else_is_connected_so_that_we_are_asked_when_that_fails() -> None:
    (action,) = messages.away({"type": "phone", "number": "493012345678"}, "", "https://voice.example/event")
    assert action["eventType"] == "synchronous"
    assert action["eventUrl"] == ["https://voice.example/event"]
    assert action["randomFromNumber"] is True
