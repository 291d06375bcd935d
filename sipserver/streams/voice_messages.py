"""The words of the plain voice WebSocket, as docs/voice-websocket.md tells them. Pure.

Text messages are JSON objects with `type`. Sound is binary: eight bytes of head, then L16, 16 kHz, mono, little-endian.
The head is the sequence number of the message's first sample (unsigned, big-endian), counted in samples from 0 in each
direction; it lets both ends send again what the other one has not got. A client that asks for it has its sound as JSON,
too: `media` with the samples in base64.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping
from typing import Any

from sipserver.errors import BadPayload
from sipserver.streams.reading import base64_payload, json_message

HEAD = struct.Struct("!Q")
MOST_SAMPLES = 1600
"""In one message: 100 ms."""


def parse(text: str) -> Mapping[str, Any]:
    """An object with `type`. Raises BadPayload."""
    return json_message(text, "type")[1]


def number(body: Mapping[str, Any], name: str) -> int:
    """A count in a message. Raises BadPayload."""
    value = body.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise BadPayload(f"`{name}` is not a count")
    return value


def sound(message: bytes) -> tuple[int, bytes]:
    """The position of the first sample, and the samples. Raises BadPayload."""
    if len(message) < HEAD.size:
        raise BadPayload(f"a binary message of {len(message)} bytes")
    return int(HEAD.unpack_from(message)[0]), _samples(message[HEAD.size :])


def sound_in(body: Mapping[str, Any]) -> tuple[int | None, bytes]:
    """The same of a `media` message; one without `at` goes on where the last one ended. Raises BadPayload."""
    return (number(body, "at") if "at" in body else None), _samples(base64_payload(body))


def binary(at: int, payload: bytes) -> bytes:
    return HEAD.pack(at) + payload


def media(at: int, payload: bytes) -> str:
    return made("media", at=at, payload=base64.b64encode(payload).decode())


def made(kind: str, /, **fields: Any) -> str:
    return json.dumps({"type": kind, **fields}, separators=(",", ":"))


def _samples(payload: bytes) -> bytes:
    if not payload or len(payload) % 2 or len(payload) > 2 * MOST_SAMPLES:
        raise BadPayload(f"sound of {len(payload)} bytes")
    return payload
