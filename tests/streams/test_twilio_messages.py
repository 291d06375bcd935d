"""Twilio's messages as its documentation prints them, and what cannot be read."""

from __future__ import annotations

import base64
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.errors import BadPayload
from sipserver.streams import twilio_messages as messages

SID = "MZXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX"
START = {
    "event": "start",
    "sequenceNumber": "1",
    "start": {
        "accountSid": "ACXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX",
        "streamSid": SID,
        "callSid": "CAXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX",
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"FirstName": "Jane", "LastName": "Doe", "RemoteParty": "Bob"},
    },
    "streamSid": SID,
}


def test_what_twilio_documents_is_read() -> None:
    connected = messages.parse('{"event": "connected", "protocol": "Call", "version": "1.0.0"}')
    assert connected == messages.Connected("Call", "1.0.0")
    start = messages.parse(json.dumps(START))
    assert isinstance(start, messages.Start)
    assert (start.stream_sid, start.tracks) == (SID, ("inbound",))
    assert start.parameters["FirstName"] == "Jane"
    media = {
        "event": "media",
        "sequenceNumber": "3",
        "media": {
            "track": "inbound",
            "chunk": "1",
            "timestamp": "5",
            "payload": base64.b64encode(b"\xff\x00").decode(),
        },
        "streamSid": SID,
    }
    assert messages.parse(json.dumps(media)) == messages.Media(SID, "inbound", b"\xff\x00")
    dtmf = {"event": "dtmf", "streamSid": SID, "sequenceNumber": "5", "dtmf": {"track": "inbound_track", "digit": "1"}}
    assert messages.parse(json.dumps(dtmf)) == messages.Dtmf(SID, "1")
    mark = {"event": "mark", "sequenceNumber": "4", "streamSid": SID, "mark": {"name": "my label"}}
    assert messages.parse(json.dumps(mark)) == messages.Mark(SID, "my label")
    stop = {"event": "stop", "sequenceNumber": "5", "stop": {"accountSid": "AC", "callSid": "CA"}, "streamSid": SID}
    assert messages.parse(json.dumps(stop)) == messages.Stop(SID)
    assert messages.parse('{"event": "brand-new"}') == messages.Unknown("brand-new")


def test_what_is_sent_is_what_twilio_documents() -> None:
    before, after = messages.media_maker(SID)
    sent = json.loads(before + messages.base64_of(b"\x00\x01\xff") + after)
    assert sent == {"event": "media", "streamSid": SID, "media": {"payload": "AAH/"}}
    assert json.loads(messages.mark(SID, "m1")) == {"event": "mark", "streamSid": SID, "mark": {"name": "m1"}}
    assert json.loads(messages.clear(SID)) == {"event": "clear", "streamSid": SID}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "JSON"),
        ("[]", "without `event`"),
        ('{"event": 7}', "without `event`"),
        ('{"event": "media", "streamSid": "MZ"}', "without `media`"),
        ('{"event": "media", "streamSid": "MZ", "media": {}}', "without payload"),
        ('{"event": "media", "streamSid": "MZ", "media": {"payload": "%%%"}}', "not base64"),
        ('{"event": "media", "media": {"payload": "AA=="}}', "`streamSid` is missing"),
        ('{"event": "dtmf", "streamSid": "MZ", "dtmf": {}}', "`digit` is missing"),
        (json.dumps({**START, "start": {**START["start"], "mediaFormat": {"encoding": "opus"}}}), "mu-law"),  # type: ignore[dict-item]
        (json.dumps({**START, "start": {**START["start"], "customParameters": 3}}), "customParameters"),  # type: ignore[dict-item]
    ],
)
def test_what_cannot_be_read_says_why(text: str, why: str) -> None:
    with pytest.raises(BadPayload, match=why):
        messages.parse(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_json_is_a_message_or_refused(body: object) -> None:
    for event in ("media", "start", "mark", "dtmf", "stop", "connected", "other"):
        shaped = (
            {**body, "event": event} if isinstance(body, dict) else {"event": event, "streamSid": "MZ", event: body}
        )
        with contextlib.suppress(BadPayload):
            assert messages.parse(json.dumps(shaped)) is not None
