"""What was said in a call, out of its events: by the caller as understood, by the server as heard. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sipserver.store.reader import EventRow

KINDS = ("stt.transcript", "tts.spoken")


@dataclass(frozen=True, slots=True)
class Line:
    at_ms: int
    who: Literal["caller", "server"]
    text: str


def line(event: EventRow) -> Line | None:
    """None: another kind of event, an interim transcript, or nothing was heard."""
    if event.kind == KINDS[0]:
        text = str(event.fields.get("text", "")) if event.fields.get("final", True) else ""
        return Line(event.at_ms, "caller", text) if text else None
    text = str(event.fields.get("heard", "")) if event.kind == KINDS[1] else ""
    return Line(event.at_ms, "server", text) if text else None
