"""Plain PCM, for bots that were written for nobody yet: docs/bots.md is its page.

Binary frames are little-endian L16, text frames JSON. We say `start`, `digit`, `mark` and `stop`; the bot may say
`mark`, `clear` and `hangup`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence

from sipserver.errors import BadPayload
from sipserver.streams.bots.contract import Ask, Clear, Dialect, HangUp, Mark, Message, Order, Sound, Unknown
from sipserver.streams.contract import WireFormat
from sipserver.streams.reading import json_object, whole_samples

_WIRES: Mapping[int, WireFormat] = {8000: "l16_8", 16_000: "l16_16", 24_000: "l16_24"}


class PcmDialect(Dialect):
    def __init__(self, order: Order) -> None:
        self._rate_hz = order.rate_hz or 16_000
        self.wire = _WIRES[self._rate_hz]
        self._start = {
            "event": "start",
            "version": 1,
            "stream_id": uuid.uuid4().hex,
            "call_id": order.call_id,
            "tenant": order.tenant,
            "from": order.from_user,
            "to": order.to_user,
            "rate_hz": self._rate_hz,
            "track": order.tracks,
            "parameters": dict(order.parameters),
        }

    def opening(self) -> Sequence[Message]:
        return (json.dumps(self._start),)

    def sound(self, payload: bytes, track: str, at_ms: int) -> Message:
        return payload

    def digit(self, digit: str) -> Message:
        return json.dumps({"event": "digit", "digit": digit})

    def marked(self, name: str, *, played: bool) -> Message:
        return json.dumps({"event": "mark", "name": name, "played": played})

    def closing(self, reason: str) -> Sequence[Message]:
        return (json.dumps({"event": "stop", "reason": reason}),)

    def read(self, message: Message) -> Ask:
        if isinstance(message, bytes):
            return Sound(whole_samples(message))
        told = json_object(message)
        match told.get("event"):
            case "mark":
                name = told.get("name")
                if not isinstance(name, str):
                    raise BadPayload("a mark without a name")
                return Mark(name)
            case "clear":
                return Clear()
            case "hangup":
                return HangUp()
            case str():
                return Unknown()
            case _:
                raise BadPayload("a message without an event")
