"""The messages of Twilio Media Streams, as bytes of text and as values. Pure.

Source: Twilio, "Media Streams - WebSocket Messages" (twilio.com/docs/voice/media-streams/websocket-messages). Numbers
that the protocol sends as strings are strings. Sound is mu-law, 8 kHz, mono, base64, in chunks of any size.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sipserver.errors import BadPayload
from sipserver.streams.reading import base64_payload, inner, json_message


@dataclass(frozen=True, slots=True)
class Connected:
    protocol: str
    version: str


@dataclass(frozen=True, slots=True)
class Start:
    """parameters: those of <Parameter> in TwiML."""

    stream_sid: str
    account_sid: str
    call_sid: str
    tracks: tuple[str, ...]
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Media:
    stream_sid: str
    track: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Dtmf:
    stream_sid: str
    digit: str


@dataclass(frozen=True, slots=True)
class Mark:
    stream_sid: str
    name: str


@dataclass(frozen=True, slots=True)
class Stop:
    stream_sid: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """An event that we do not know: to be ignored, the protocol may grow."""

    event: str


Message = Connected | Start | Media | Dtmf | Mark | Stop | Unknown

FORMAT = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}


def parse(text: str) -> Message:
    """Raises BadPayload, with the reason, for what is no message of this protocol."""
    event, body = json_message(text, "event")
    reader = _READERS.get(event)
    return Unknown(event) if reader is None else reader(body)


def media_maker(stream_sid: str) -> tuple[str, str]:
    """What stands before and after the base64 of a `media` message: made once, used 50 times a second."""
    return f'{{"event":"media","streamSid":{json.dumps(stream_sid)},"media":{{"payload":"', '"}}'


def base64_of(payload: bytes) -> str:
    return binascii.b2a_base64(payload, newline=False).decode("ascii")


def mark(stream_sid: str, name: str) -> str:
    return _made({"event": "mark", "streamSid": stream_sid, "mark": {"name": name}})


def clear(stream_sid: str) -> str:
    return _made({"event": "clear", "streamSid": stream_sid})


def _made(body: Mapping[str, Any]) -> str:
    return json.dumps(body, separators=(",", ":"))


def _start(body: Mapping[str, Any]) -> Start:
    start = inner(body, "start")
    sound = start.get("mediaFormat", FORMAT)
    if not isinstance(sound, dict) or {key: sound.get(key) for key in FORMAT} != FORMAT:
        raise BadPayload("a stream that is not mu-law, 8 kHz, mono")
    parameters, tracks = start.get("customParameters") or {}, start.get("tracks") or ["inbound"]
    if not isinstance(parameters, dict) or not isinstance(tracks, list):
        raise BadPayload("a `start` whose customParameters or tracks are none")
    return Start(
        _text(start, "streamSid"),
        str(start.get("accountSid", "")),
        str(start.get("callSid", "")),
        tuple(map(str, tracks)),
        {str(name): str(value) for name, value in parameters.items()},
    )


def _media(body: Mapping[str, Any]) -> Media:
    media = inner(body, "media")
    return Media(_text(body, "streamSid"), str(media.get("track", "inbound")), base64_payload(media))


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise BadPayload(f"`{name}` is missing")
    return value


_READERS: Mapping[str, Callable[[Mapping[str, Any]], Message]] = {
    "media": _media,
    "mark": lambda body: Mark(_text(body, "streamSid"), _text(inner(body, "mark"), "name")),
    "dtmf": lambda body: Dtmf(_text(body, "streamSid"), _text(inner(body, "dtmf"), "digit")),
    "start": _start,
    "connected": lambda body: Connected(str(body.get("protocol", "")), str(body.get("version", ""))),
    "stop": lambda body: Stop(_text(body, "streamSid")),
}
