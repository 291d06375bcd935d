"""Vonage's WebSocket protocol as Vonage speaks it.

https://developer.vonage.com/en/voice/voice-api/concepts/websockets: binary frames of 20 ms of little-endian L16 at 8,
16 or 24 kHz; JSON in text frames. The headers that a bot of Vonage's gets (its metadata) are our `parameters`, flat
beside the event's own fields.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from sipserver.errors import BadPayload
from sipserver.streams.bots.contract import Ask, Clear, Dialect, Mark, Message, Order, Sound, Unknown
from sipserver.streams.contract import WireFormat
from sipserver.streams.reading import json_object, whole_samples

_WIRES: Mapping[int, WireFormat] = {8000: "l16_8", 16_000: "l16_16", 24_000: "l16_24"}

DIGIT_MS = 160
"""How long a key was held, as far as a bot is told: not every leg knows it."""


class VonageDialect(Dialect):
    def __init__(self, order: Order) -> None:
        self._rate_hz = order.rate_hz or 16_000
        self.wire = _WIRES[self._rate_hz]
        self._parameters = dict(order.parameters)

    def opening(self) -> Sequence[Message]:
        connected = {"event": "websocket:connected", "content-type": f"audio/l16;rate={self._rate_hz}"}
        return (json.dumps({**self._parameters, **connected}),)

    def sound(self, payload: bytes, track: str, at_ms: int) -> Message:
        return payload

    def digit(self, digit: str) -> Message:
        return json.dumps({"event": "websocket:dtmf", "digit": digit, "duration": DIGIT_MS})

    def marked(self, name: str, *, played: bool) -> Message | None:
        """name: the payload of `notify`, as JSON. What is thrown away is told by `cleared` alone."""
        return f'{{"event":"websocket:notify","payload":{name}}}' if played else None

    def cleared(self) -> Message:
        return json.dumps({"event": "websocket:cleared"})

    def read(self, message: Message) -> Ask:
        if isinstance(message, bytes):
            return Sound(whole_samples(message))
        told = json_object(message)
        match told.get("action"):
            case "clear":
                return Clear()
            case "notify":
                return Mark(json.dumps(told.get("payload"), separators=(",", ":")))
            case str():
                return Unknown()
            case _:
                raise BadPayload("a message without an action")
