"""Everything that happens to a call, as frozen dataclasses.

A producer (leg, agent, step) emits an `Event` without knowing which call it belongs to; the call stamps it with its id,
its tenant and its own clock, and appends it to the record. From the stamped events alone the whole call can be drawn.
Field metadata `private=True` marks speech, digits and phone numbers: the redactor and the log know them by it.
Times are milliseconds; `..._ms` fields are durations unless the name says `at`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sipserver.events.base import (
    Emit,
    Event,
    LegEvent,
    Stamped,
    private,
)
from sipserver.events.call import (
    CallCarried,
    CallEnded,
    CallLimited,
    CallMuted,
    CallOnHold,
    CallRouted,
    CallStarted,
    CallStateChanged,
)
from sipserver.events.conversation import (
    BargeIn,
    ClauseSynthesised,
    ModelSpan,
    Speculation,
    Spoken,
    ToolSpan,
    Transcript,
    TurnEnded,
    TurnLatency,
    VoiceStarted,
    VoiceStopped,
)
from sipserver.events.dialplan import (
    Decided,
    StepEntered,
    StepLeft,
    VariableSet,
)
from sipserver.events.faults import (
    Fault,
    ProviderFailed,
    WatchdogFired,
)
from sipserver.events.gatherings import (
    ConferenceJoined,
    ConferenceLeft,
    ConferenceMuted,
    QueueConnected,
    QueueEntered,
    QueueLeft,
    QueueOffered,
    QueueServed,
    VoicemailLeft,
    VoicemailTranscribed,
)
from sipserver.events.leg import (
    DigitReceived,
    DigitsSent,
    LegAnswered,
    LegDisconnected,
    LegHeld,
    LegProgress,
    LegReplaced,
    LegResumed,
    MediaRecovered,
    MediaSourceChanged,
    MediaStalled,
    MediaStarted,
    ReferProgress,
    ReferReceived,
    RtpStats,
    SipMessage,
)
from sipserver.events.parties import (
    AnswererDetected,
    Bridged,
    PartyDialed,
    PartyEnded,
    TransferEnded,
    TransferStarted,
    Unbridged,
)
from sipserver.events.recording import (
    RecordingFailed,
    RecordingPaused,
    RecordingRefused,
    RecordingResumed,
    RecordingStarted,
    RecordingStopped,
)
from sipserver.events.secure import SecureEnded, SecureStarted
from sipserver.events.streams import (
    BitRateChanged,
    BotConnected,
    BotDisconnected,
    BotMark,
    IceChanged,
    StreamDropped,
    StreamMessage,
    StreamResumed,
    StreamStats,
)
from sipserver.events.usage import EngineUsed, LimitExceeded, LimitNear

KINDS: dict[str, type[Event]] = {
    each.kind: each
    for each in list(globals().values())
    if isinstance(each, type) and issubclass(each, Event) and each not in (Event, LegEvent)
}
"""Every event by its kind."""


def restore(kind: str, fields: Mapping[str, Any]) -> Event | None:
    """The event that `fields()` was taken from, e.g. in another process; None for what this version does not know."""
    made = KINDS.get(kind)
    if made is None:
        return None
    try:
        return made(**fields)
    except TypeError:
        return None


__all__ = [
    "KINDS",
    "AnswererDetected",
    "BargeIn",
    "BitRateChanged",
    "BotConnected",
    "BotDisconnected",
    "BotMark",
    "Bridged",
    "CallCarried",
    "CallEnded",
    "CallLimited",
    "CallMuted",
    "CallOnHold",
    "CallRouted",
    "CallStarted",
    "CallStateChanged",
    "ClauseSynthesised",
    "ConferenceJoined",
    "ConferenceLeft",
    "ConferenceMuted",
    "Decided",
    "DigitReceived",
    "DigitsSent",
    "Emit",
    "EngineUsed",
    "Event",
    "Fault",
    "IceChanged",
    "LegAnswered",
    "LegDisconnected",
    "LegEvent",
    "LegHeld",
    "LegProgress",
    "LegReplaced",
    "LegResumed",
    "LimitExceeded",
    "LimitNear",
    "MediaRecovered",
    "MediaSourceChanged",
    "MediaStalled",
    "MediaStarted",
    "ModelSpan",
    "PartyDialed",
    "PartyEnded",
    "ProviderFailed",
    "QueueConnected",
    "QueueEntered",
    "QueueLeft",
    "QueueOffered",
    "QueueServed",
    "RecordingFailed",
    "RecordingPaused",
    "RecordingRefused",
    "RecordingResumed",
    "RecordingStarted",
    "RecordingStopped",
    "ReferProgress",
    "ReferReceived",
    "RtpStats",
    "SecureEnded",
    "SecureStarted",
    "SipMessage",
    "Speculation",
    "Spoken",
    "Stamped",
    "StepEntered",
    "StepLeft",
    "StreamDropped",
    "StreamMessage",
    "StreamResumed",
    "StreamStats",
    "ToolSpan",
    "Transcript",
    "TransferEnded",
    "TransferStarted",
    "TurnEnded",
    "TurnLatency",
    "Unbridged",
    "VariableSet",
    "VoiceStarted",
    "VoiceStopped",
    "VoicemailLeft",
    "VoicemailTranscribed",
    "WatchdogFired",
    "private",
    "restore",
]
