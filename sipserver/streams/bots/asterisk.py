"""The protocol of Asterisk's chan_websocket as Asterisk speaks it, in its text form or its JSON form.

https://docs.asterisk.org/Configuration/Channel-Drivers/WebSocket: binary frames are sound, text frames are commands
and events. The channel counts as answered when the bot is connected, so ANSWER changes nothing. Sound of any length may
come at any pace; at 900 waiting frames MEDIA_XOFF asks for a rest, below 800 MEDIA_XON ends it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from sipserver.audio.frame import FRAME_MS
from sipserver.errors import BadPayload
from sipserver.streams.bots.contract import (
    Ask,
    Clear,
    Dialect,
    Direction,
    Drained,
    HangUp,
    Mark,
    Message,
    Nothing,
    Order,
    Pause,
    Sound,
    Status,
    Unknown,
)
from sipserver.streams.contract import WireFormat
from sipserver.streams.reading import json_object, whole_samples

XOFF_FRAMES, XON_FRAMES = 900, 800

_FORMATS: Mapping[int, tuple[str, WireFormat, int]] = {
    8000: ("ulaw", "mulaw8", 160),
    16_000: ("slin16", "l16_16", 640),
    24_000: ("slin24", "l16_24", 960),
}
"""Asterisk's name of the format, ours, and the bytes of 20 ms."""

_DIRECTIONS = {"both": Direction(True, True), "in": Direction(False, True), "out": Direction(True, False)}
"""As the bot sees it: `in` is what it gets."""

_COMMANDS: Mapping[str, Ask] = {
    "ANSWER": Nothing(),
    "HANGUP": HangUp(),
    "START_MEDIA_BUFFERING": Nothing(),
    "FLUSH_MEDIA": Clear(),
    "PAUSE_MEDIA": Pause(True),
    "CONTINUE_MEDIA": Pause(False),
    "GET_STATUS": Status(),
    "REPORT_QUEUE_DRAINED": Drained(),
}
"""Those that stand for themselves."""

_BULK = frozenset({"START_MEDIA_BUFFERING", "STOP_MEDIA_BUFFERING", "FLUSH_MEDIA"})

_BUFFERED, _MARKED = "b", "m"


class AsteriskDialect(Dialect):
    subprotocols: ClassVar[tuple[str, ...]] = ("media",)

    def __init__(self, order: Order, *, as_json: bool = False) -> None:
        self._format, self.wire, self._frame_bytes = _FORMATS[order.rate_hz or 8000]
        self._json = as_json
        self._connection_id = str(uuid.uuid4())
        self._channel_id = order.call_id
        self._parameters = dict(order.parameters)
        self._full = False
        self._bulk = False

    def opening(self) -> Sequence[Message]:
        facts = {
            "connection_id": self._connection_id,
            "channel": f"WebSocket/sipserver/{self._channel_id}",
            "channel_id": self._channel_id,
            "format": self._format,
            "optimal_frame_size": self._frame_bytes,
            "ptime": FRAME_MS,
        }
        if self._json:
            return (json.dumps({"event": "MEDIA_START", **facts, "channel_variables": self._parameters}),)
        return (" ".join(("MEDIA_START", *(f"{name}:{value}" for name, value in facts.items()))),)

    def sound(self, payload: bytes, track: str, at_ms: int) -> Message:
        return payload

    def digit(self, digit: str) -> Message:
        if self._json:
            return self._tell("DTMF_END", digit=digit)
        return f"DTMF_END digit:{digit}"

    def marked(self, name: str, *, played: bool) -> Message | None:
        """A flush takes its marks with it: Asterisk does not tell them."""
        if not played:
            return None
        event = "MEDIA_BUFFERING_COMPLETED" if name[0] == _BUFFERED else "MEDIA_MARK_PROCESSED"
        correlation_id = name[1:]
        if self._json:
            return self._tell(event, **({"correlation_id": correlation_id} if correlation_id else {}))
        return f"{event} {correlation_id}".rstrip()

    def drained(self) -> Message:
        return self._tell("QUEUE_DRAINED")

    def level(self, frames: int) -> Message | None:
        if not self._full and frames >= XOFF_FRAMES:
            self._full = True
            return self._tell("MEDIA_XOFF")
        if self._full and frames < XON_FRAMES:
            self._full = False
            return self._tell("MEDIA_XON")
        return None

    def status(self, frames: int, *, paused: bool) -> Message:
        facts: dict[str, Any] = {
            "queue_length": frames,
            "xon_level": XON_FRAMES,
            "xoff_level": XOFF_FRAMES,
            "queue_full": self._full,
            "bulk_media": self._bulk,
            "media_paused": paused,
        }
        if self._json:
            return self._tell("STATUS", **facts)
        return " ".join(("STATUS", *(f"{name}:{str(value).lower()}" for name, value in facts.items())))

    def read(self, message: Message) -> Ask:
        if isinstance(message, bytes):
            if not message:
                raise BadPayload("an empty frame")
            return Sound(message if self.wire == "mulaw8" else whole_samples(message))
        command, argument = self._command(message)
        if command in _BULK:
            self._bulk = command == "START_MEDIA_BUFFERING"
        if command == "STOP_MEDIA_BUFFERING":
            return Mark(_BUFFERED + argument, pad=True)
        if command == "MARK_MEDIA":
            return Mark(_MARKED + argument)
        if command == "SET_MEDIA_DIRECTION":
            return _DIRECTIONS.get(argument, Unknown())
        return _COMMANDS.get(command, Unknown())

    def _command(self, message: str) -> tuple[str, str]:
        """The command and its one argument, in whichever form the bot writes them."""
        if not message.lstrip().startswith("{"):
            command, _, argument = message.strip().partition(" ")
            if not (command.isupper() and command.replace("_", "").isalpha()):
                raise BadPayload("a text that is no command")
            return command, argument.strip()
        told = json_object(message)
        asked = told.get("command")
        if not isinstance(asked, str):
            raise BadPayload("a message without a command")
        return asked, str(told.get("correlation_id") or told.get("direction") or "")

    def _tell(self, event: str, **facts: Any) -> str:
        return json.dumps({"event": event, "channel_id": self._channel_id, **facts}) if self._json else event
