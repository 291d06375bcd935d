"""What a caller may see of its own call while it lasts: small JSON messages, made of the call's events. Pure.

The phone page shows them; they reach it over the call's data channel or voice WebSocket. Refuses to know either, and
says nothing that is not the caller's: no addresses, no SIP, no names of engines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sipserver.events import (
    CallEnded,
    CallRouted,
    CallStateChanged,
    DigitReceived,
    Event,
    Fault,
    ProviderFailed,
    RecordingFailed,
    RecordingPaused,
    RecordingRefused,
    RecordingResumed,
    RecordingStarted,
    RecordingStopped,
    Spoken,
    Stamped,
    StreamStats,
    Transcript,
    TurnLatency,
    WatchdogFired,
)

Message = dict[str, Any]

_SHOWN: Mapping[type[Event], Callable[[Any], Message]] = {
    CallStateChanged: lambda event: {"kind": "call.state", "state": event.new},
    CallRouted: lambda event: {"kind": "call.routed", "flow": event.flow},
    Transcript: lambda event: {"kind": "transcript", "text": event.text, "final": event.final},
    Spoken: lambda event: {"kind": "spoken", "text": event.heard, "complete": event.complete},
    TurnLatency: lambda event: {
        "kind": "turn.latency",
        "total_ms": event.total_ms,
        "endpoint_ms": event.endpoint_ms,
        "stt_ms": event.stt_ms,
        "llm_ms": event.llm_ms,
        "tts_ms": event.tts_ms,
        "playout_ms": event.playout_ms,
    },
    DigitReceived: lambda event: {"kind": "digit", "digit": event.digit},
    RecordingStarted: lambda _: {"kind": "recording", "state": "started"},
    RecordingPaused: lambda _: {"kind": "recording", "state": "paused"},
    RecordingResumed: lambda _: {"kind": "recording", "state": "resumed"},
    RecordingStopped: lambda _: {"kind": "recording", "state": "stopped"},
    RecordingRefused: lambda _: {"kind": "recording", "state": "refused"},
    RecordingFailed: lambda _: {"kind": "recording", "state": "failed"},
    ProviderFailed: lambda event: {"kind": "fault", "what": f"{event.part} failed"},
    WatchdogFired: lambda event: {"kind": "fault", "what": event.watchdog},
    Fault: lambda event: {"kind": "fault", "what": event.where},
    StreamStats: lambda event: {"kind": "path", "round_trip_ms": event.round_trip_ms},
    CallEnded: lambda event: {"kind": "hangup", "reason": event.reason},
}


def shown(stamped: Stamped) -> Message | None:
    """The message for the caller, with `at_ms` since the call began; None: this event is not for it."""
    make = _SHOWN.get(type(stamped.event))
    return None if make is None else {**make(stamped.event), "at_ms": stamped.at_ms}
