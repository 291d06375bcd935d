"""Twilio's Media Streams protocol as Twilio speaks it: any bot written for it may be at the other end.

https://www.twilio.com/docs/voice/media-streams/websocket-messages: text frames of JSON; numbers that the protocol sends
as strings are strings. Mu-law, 8 kHz, base64. A mark comes back when its sound was played, or thrown away by `clear`.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

from sipserver.errors import BadPayload
from sipserver.streams.bots.contract import Ask, Clear, Dialect, Mark, Message, Order, Sound, Unknown
from sipserver.streams.contract import WireFormat
from sipserver.streams.reading import base64_payload, inner, json_object


class TwilioDialect(Dialect):
    """The sids look like Twilio's: the account's is made of the tenant, the call's of our call id, so that both stay
    the same for the same tenant and call; the stream's is new.
    """

    wire: WireFormat = "mulaw8"
    per_track = True

    def __init__(self, order: Order) -> None:
        self._tracks = ["inbound", "outbound"] if order.tracks == "both" else [order.tracks]
        self._parameters = dict(order.parameters)
        self.account_sid = _sid("AC", order.tenant)
        self.call_sid = _sid("CA", order.call_id)
        self.stream_sid = f"MZ{uuid.uuid4().hex}"
        self._number = 0
        self._chunks = dict.fromkeys(("inbound", "outbound"), 0)

    def opening(self) -> Sequence[Message]:
        start = {
            "accountSid": self.account_sid,
            "streamSid": self.stream_sid,
            "callSid": self.call_sid,
            "tracks": self._tracks,
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": self._parameters,
        }
        connected = json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"})
        return connected, self._say("start", start=start)

    def sound(self, payload: bytes, track: str, at_ms: int) -> Message:
        self._number += 1  # written by hand: 50 times a second and track
        self._chunks[track] += 1
        return (
            f'{{"event":"media","sequenceNumber":"{self._number}","media":{{"track":"{track}",'
            f'"chunk":"{self._chunks[track]}","timestamp":"{at_ms}","payload":"{b64encode(payload).decode()}"}},'
            f'"streamSid":"{self.stream_sid}"}}'
        )

    def digit(self, digit: str) -> Message:
        return self._say("dtmf", dtmf={"track": "inbound_track", "digit": digit})

    def marked(self, name: str, *, played: bool) -> Message:
        return self._say("mark", mark={"name": name})

    def closing(self, reason: str) -> Sequence[Message]:
        return (self._say("stop", stop={"accountSid": self.account_sid, "callSid": self.call_sid}),)

    def read(self, message: Message) -> Ask:
        told = json_object(message)
        match told.get("event"):
            case "media":
                self._is_ours(told)
                return Sound(_payload(told))
            case "mark":
                self._is_ours(told)
                name = inner(told, "mark").get("name")
                if not isinstance(name, str):
                    raise BadPayload("a mark without a name")
                return Mark(name)
            case "clear":
                self._is_ours(told)
                return Clear()
            case str():
                return Unknown()
            case _:
                raise BadPayload("a message without an event")

    def _is_ours(self, told: dict[str, Any]) -> None:
        """A bot that serves many calls may mistake one for another; without a sid it can only mean this one."""
        if told.get("streamSid", self.stream_sid) != self.stream_sid:
            raise BadPayload("a message for another stream")

    def _say(self, event: str, **body: Any) -> str:
        self._number += 1
        told = {"event": event, "sequenceNumber": str(self._number), **body, "streamSid": self.stream_sid}
        return json.dumps(told, separators=(",", ":"))


def _sid(kind: str, name: str) -> str:
    return kind + hashlib.sha256(name.encode()).hexdigest()[:32]


def _payload(told: dict[str, Any]) -> bytes:
    payload = base64_payload(inner(told, "media"))
    if not payload:
        raise BadPayload("a `media` without sound")
    return payload
