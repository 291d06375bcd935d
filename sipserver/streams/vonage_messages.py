"""What Vonage says on a WebSocket and takes there, and the actions of NCCO that connect a call to it. Pure.

Source: Vonage, "WebSockets in the Vonage Voice API" and "NCCO reference". Sound is binary: 16 bit samples,
little-endian, 20 ms a message; all else is JSON text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sipserver.errors import BadPayload
from sipserver.streams.reading import json_message

TOKEN = "token"  # noqa: S105 # nosec B105 - the name of a header
MOST_HEADER_BYTES = 512
"""So much may the headers of an endpoint have together."""

_TYPE = re.compile(r"^audio/l16;\s*rate=(8000|16000|24000)$", re.IGNORECASE)

Ncco = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Connected:
    """The first message. headers: those of our NCCO, which lie flat beside the rest."""

    rate_hz: int
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dtmf:
    digit: str


@dataclass(frozen=True, slots=True)
class Notified:
    """All that was sent before our `notify` of this name was played."""

    name: str


@dataclass(frozen=True, slots=True)
class Cleared:
    pass


@dataclass(frozen=True, slots=True)
class Unknown:
    """An event that we do not know: to be ignored, the protocol may grow."""

    event: str


Message = Connected | Dtmf | Notified | Cleared | Unknown

CLEAR = '{"action":"clear"}'


def notify(name: str) -> str:
    """Asks to be told when all that was sent before has been played."""
    return json.dumps({"action": "notify", "payload": {"name": name}}, separators=(",", ":"))


def frame_bytes(rate_hz: int) -> int:
    """20 ms: 320, 640 or 960 bytes."""
    return rate_hz // 50 * 2


def parse(text: str) -> Message:
    """Raises BadPayload, with the reason, for what is no message of this protocol."""
    event, body = json_message(text, "event")
    match event:
        case "websocket:connected":
            return _connected(body)
        case "websocket:dtmf":
            digit = body.get("digit")
            if not isinstance(digit, str) or len(digit) != 1:
                raise BadPayload("a `websocket:dtmf` without a digit")
            return Dtmf(digit)
        case "websocket:notify":
            payload = body.get("payload")
            if not isinstance(payload, dict) or not isinstance(name := payload.get("name"), str):
                raise BadPayload("a `websocket:notify` that is none of ours")
            return Notified(name)
        case "websocket:cleared":
            return Cleared()
    return Unknown(event)


def _connected(body: Mapping[str, Any]) -> Connected:
    found = _TYPE.match(str(body.get("content-type", "")))
    if found is None:
        raise BadPayload("a stream that is not 16 bit linear at 8, 16 or 24 kHz")
    headers = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in body.items()
        if name not in ("event", "content-type")
    }
    return Connected(int(found[1]), headers)


def websocket(uri: str, rate_hz: int, token: str) -> Ncco:
    """Connects the call to our WebSocket. Nothing follows in it: when the WebSocket closes, the call is over.

    Raises ValueError when the token makes the headers longer than Vonage takes.
    """
    headers = {TOKEN: token}
    if len(json.dumps(headers)) > MOST_HEADER_BYTES:
        raise ValueError(f"the token is too long for Vonage, which takes {MOST_HEADER_BYTES} bytes of headers")
    endpoint = {
        "type": "websocket",
        "uri": uri,
        "content-type": f"audio/l16;rate={rate_hz}",
        "headers": headers,
    }
    return [{"action": "connect", "endpoint": [endpoint]}]


def away(endpoint: Mapping[str, Any], from_number: str, event_url: str) -> Ncco:
    """Connects the call to somebody else. eventType synchronous: what we answer when that fails is done next."""
    shown = {"from": from_number} if from_number else {"randomFromNumber": True}
    return [
        {
            "action": "connect",
            **shown,
            "eventType": "synchronous",
            "eventUrl": [event_url],
            "endpoint": [dict(endpoint)],
        }
    ]


def digits_of(number: str) -> str:
    """A number as Vonage writes it: digits alone, with the country. Empty: it is none."""
    bare = number.removeprefix("+").removeprefix("00")
    return bare if re.fullmatch(r"[1-9]\d{6,14}", bare) else ""


def endpoint_of(to_uri: str, own_host: str) -> dict[str, Any]:
    """Where a URI or a number leads. own_host: the host of our own caller's addresses: its users are numbers.

    Raises ValueError for what is neither a number nor a SIP URI.
    """
    scheme, _, rest = to_uri.partition(":")
    user, _, host = rest.partition("@")
    if scheme.lower() in ("sip", "sips") and host and host != own_host:
        return {"type": "sip", "uri": to_uri}
    number = digits_of(user if rest else to_uri)
    if not number:
        raise ValueError("Vonage calls numbers of 7 to 15 digits, with the country, and SIP URIs")
    return {"type": "phone", "number": number}


FINAL: Mapping[str, int] = {
    "answered": 200,
    "busy": 486,
    "timeout": 480,
    "unanswered": 480,
    "rejected": 603,
    "failed": 503,
    "cancelled": 487,
}
"""What became of a call leg, as a SIP status."""


def reached(status: str) -> int:
    """What a leg's status means for whoever wanted to reach it; 0: nothing yet. One that is completed before it was
    answered has not been.
    """
    return FINAL["unanswered"] if status == "completed" else FINAL.get(status, 0)
