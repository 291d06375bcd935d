"""Everything that happens to a call, as frozen dataclasses.

A producer (leg, agent, step) emits an `Event` without knowing which call it belongs to; the call stamps it with its id,
its tenant and its own clock, and appends it to the record. From the stamped events alone the whole call can be drawn.
Field metadata `private=True` marks speech, digits and phone numbers: the redactor and the log know them by it.
Times are milliseconds; `..._ms` fields are durations unless the name says `at`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar


def private(default: str = "") -> Any:
    """A field that holds speech, digits or a phone number."""
    return field(default=default, metadata={"private": True})


_NAMES: dict[type, tuple[str, ...]] = {}
"""The fields of each class, found with its first event: an event is told every few milliseconds."""


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events. `kind` is the name in records, logs and (later) webhooks; it never changes once published."""

    kind: ClassVar[str] = "event"

    def fields(self) -> dict[str, Any]:
        """Plain JSON-able fields, in order of declaration. Shallow: an event holds nothing that could change."""
        names = _NAMES.get(type(self))
        if names is None:
            names = _NAMES[type(self)] = tuple(each.name for each in dataclasses.fields(self))
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Stamped:
    """An event of one call. at_ms: since the call began (its first INVITE), on the monotonic clock."""

    call_id: str
    tenant: str
    at_ms: int
    event: Event


Emit = Callable[[Event], None]
"""How a producer hands over an event. Loop thread; never blocks, never raises."""


# --- the call ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CallStarted(Event):
    kind: ClassVar[str] = "call.started"
    direction: str  # inbound | outbound
    from_uri: str = private()
    to_uri: str = private()
    source: str = ""  # host:port of the peer
    sip_call_id: str = ""


@dataclass(frozen=True, slots=True)
class CallRouted(Event):
    kind: ClassVar[str] = "call.routed"
    route: int  # index in the tenant's routes
    flow: str
    why: str = ""  # the match that won, as `dialplan explain` prints it


@dataclass(frozen=True, slots=True)
class CallLimited(Event):
    """No place was left. shared: for nobody; otherwise for this process, and another one may have a place."""

    kind: ClassVar[str] = "call.limited"
    scope: str  # trunk/<name> | tenant/<name>
    limit: int
    shared: bool = True


@dataclass(frozen=True, slots=True)
class CallStateChanged(Event):
    kind: ClassVar[str] = "call.state"
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class CallEnded(Event):
    kind: ClassVar[str] = "call.ended"
    reason: str  # calls.states.EndReason
    sip_code: int = 0
    detail: str = ""


# --- the leg ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LegEvent(Event):
    """Something that a leg tells. leg: empty for the call's own; the name of another party, e.g. `party-1`, which the
    call adds.
    """

    leg: str = field(default="", kw_only=True)


@dataclass(frozen=True, slots=True)
class SipMessage(LegEvent):
    """One SIP message on the wire; text is the whole message with credentials and SDP keys redacted."""

    kind: ClassVar[str] = "sip.message"
    direction: str  # received | sent
    summary: str  # "INVITE" or "200 OK (INVITE)"
    peer: str = ""
    text: str = private()


@dataclass(frozen=True, slots=True)
class LegProgress(LegEvent):
    """A provisional answer to a call that we place. media: it came with SDP, so that early media may be heard."""

    kind: ClassVar[str] = "leg.progress"
    code: int
    media: bool = False


@dataclass(frozen=True, slots=True)
class LegAnswered(LegEvent):
    kind: ClassVar[str] = "leg.answered"
    code: int = 200


@dataclass(frozen=True, slots=True)
class LegDisconnected(LegEvent):
    """The leg is gone for good; the leg's last event but one `RtpStats`. by_peer: the far end sent BYE or CANCEL."""

    kind: ClassVar[str] = "leg.disconnected"
    code: int
    cause: str
    by_peer: bool


@dataclass(frozen=True, slots=True)
class LegReplaced(LegEvent):
    """Another party took the leg's place: by INVITE with Replaces, or because the peer transferred us (REFER)."""

    kind: ClassVar[str] = "leg.replaced"
    by: str  # replaces | refer
    uri: str = private()
    source: str = ""
    sip_call_id: str = ""


@dataclass(frozen=True, slots=True)
class ReferReceived(LegEvent):
    """The peer asks that we call somebody in its place (RFC 3515). code: our answer, 202 or 603."""

    kind: ClassVar[str] = "refer.received"
    code: int
    target: str = private()


@dataclass(frozen=True, slots=True)
class ReferProgress(LegEvent):
    """What the peer's NOTIFY says about the REFER that we sent. final: it is the last word."""

    kind: ClassVar[str] = "refer.progress"
    code: int
    final: bool = False


@dataclass(frozen=True, slots=True)
class LegHeld(LegEvent):
    kind: ClassVar[str] = "leg.held"
    by_peer: bool = True


@dataclass(frozen=True, slots=True)
class LegResumed(LegEvent):
    kind: ClassVar[str] = "leg.resumed"
    by_peer: bool = True


@dataclass(frozen=True, slots=True)
class MediaStarted(LegEvent):
    kind: ClassVar[str] = "media.started"
    codec: str
    payload_type: int
    clock_hz: int
    remote: str  # host:port
    telephone_event: int | None = None  # negotiated payload type; None: digits need INFO or in-band detection
    encrypted: bool | None = None  # by SRTP; None where the trunk does not offer it, or an edge does it


@dataclass(frozen=True, slots=True)
class MediaSourceChanged(LegEvent):
    """RTP comes from another address or SSRC than before: a moved peer, or a stranger."""

    kind: ClassVar[str] = "media.source_changed"
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class MediaStalled(LegEvent):
    """No RTP packet arrived for silent_ms although the call is not on hold."""

    kind: ClassVar[str] = "media.stalled"
    silent_ms: int


@dataclass(frozen=True, slots=True)
class MediaRecovered(LegEvent):
    kind: ClassVar[str] = "media.recovered"
    silent_ms: int


@dataclass(frozen=True, slots=True)
class RtpStats(LegEvent):
    """Every 5 s and once at the end. Counts are totals since the leg began. mos: estimated (ITU-T G.107 E-model)."""

    kind: ClassVar[str] = "media.rtp"
    received: int
    lost: int
    duplicated: int
    reordered: int
    discarded: int
    jitter_ms: float
    sent: int
    remote_lost: int
    remote_jitter_ms: float
    round_trip_ms: float | None
    mos: float | None


@dataclass(frozen=True, slots=True)
class DigitReceived(LegEvent):
    kind: ClassVar[str] = "digit.received"
    digit: str = private()
    method: str = "rfc4733"  # rfc4733 | info | inband
    duration_ms: int | None = None


@dataclass(frozen=True, slots=True)
class DigitsSent(LegEvent):
    kind: ClassVar[str] = "digit.sent"
    digits: str = private()


# --- the dialplan -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StepEntered(Event):
    kind: ClassVar[str] = "step.entered"
    flow: str
    index: int
    step: str
    line: int = 0


@dataclass(frozen=True, slots=True)
class StepLeft(Event):
    kind: ClassVar[str] = "step.left"
    flow: str
    index: int
    step: str
    outcome: str
    took_ms: int


@dataclass(frozen=True, slots=True)
class VariableSet(Event):
    kind: ClassVar[str] = "variable.set"
    name: str
    value: str = private()


# --- other parties ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PartyDialed(Event):
    """A further party is called for this call. party: its name in this call. attempt: 1 for the first trunk."""

    kind: ClassVar[str] = "party.dialed"
    party: str
    to: str = private()
    trunk: str = ""
    attempt: int = 1
    sip_call_id: str = ""


@dataclass(frozen=True, slots=True)
class PartyEnded(Event):
    """outcome: what became of the attempt to reach the party (answered | busy | no_answer | declined | failed |
    caller_gone); an answered one hung up, or was hung up, by `by`: party | us.
    """

    kind: ClassVar[str] = "party.ended"
    party: str
    outcome: str
    code: int = 0
    cause: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class AnswererDetected(Event):
    """Who answered a call that we placed. answerer: human | machine | beep | silence | fax | unknown. after_ms: since
    the answer.
    """

    kind: ClassVar[str] = "amd.decided"
    answerer: str
    after_ms: int
    why: str = ""
    party: str = ""


@dataclass(frozen=True, slots=True)
class Bridged(Event):
    """Caller and party hear each other. after_ms: since the party's answer."""

    kind: ClassVar[str] = "bridge.started"
    party: str
    after_ms: int = 0


@dataclass(frozen=True, slots=True)
class Unbridged(Event):
    """reason: caller_hangup | party_hangup | media_timeout | max_duration | transferred | step_over."""

    kind: ClassVar[str] = "bridge.ended"
    party: str
    reason: str
    lasted_ms: int = 0


@dataclass(frozen=True, slots=True)
class TransferStarted(Event):
    kind: ClassVar[str] = "transfer.started"
    mode: str  # blind | attended | warm
    to: str = private()


@dataclass(frozen=True, slots=True)
class TransferEnded(Event):
    """outcome: answered | busy | no_answer | declined | failed | caller_gone. how: refer | replaces | bridge."""

    kind: ClassVar[str] = "transfer.ended"
    mode: str
    outcome: str
    how: str = ""
    code: int = 0
    took_ms: int = 0


# --- callers meet, wait, leave a message ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConferenceJoined(Event):
    """member: this caller's number in the room, which nobody else gets. members: so many are in it now."""

    kind: ClassVar[str] = "conference.joined"
    room: str
    member: int
    members: int
    moderator: bool = False


@dataclass(frozen=True, slots=True)
class ConferenceLeft(Event):
    """reason: hangup (this call is over) | kicked | moderator_left (the room is over). members: who stay."""

    kind: ClassVar[str] = "conference.left"
    room: str
    member: int
    reason: str
    members: int
    lasted_ms: int = 0


@dataclass(frozen=True, slots=True)
class ConferenceMuted(Event):
    """Nobody in the room hears this caller any more, or they do again. by: key | operator."""

    kind: ClassVar[str] = "conference.muted"
    room: str
    member: int
    muted: bool
    by: str


@dataclass(frozen=True, slots=True)
class QueueEntered(Event):
    """position: 1 is the next to be served. waiting: so many wait now."""

    kind: ClassVar[str] = "queue.entered"
    queue: str
    position: int
    waiting: int


@dataclass(frozen=True, slots=True)
class QueueOffered(Event):
    """An agent is called for the caller, or gets them. waited_ms: since the caller came into the queue."""

    kind: ClassVar[str] = "queue.offered"
    queue: str
    agent: str = private()
    waited_ms: int = 0


@dataclass(frozen=True, slots=True)
class QueueConnected(Event):
    """Caller and agent hear each other. call: the id of the other one's call, if the agent dialled in."""

    kind: ClassVar[str] = "queue.connected"
    queue: str
    agent: str = private()
    waited_ms: int = 0
    call: str = ""


@dataclass(frozen=True, slots=True)
class QueueLeft(Event):
    """reason: answered (they talked with an agent) | timeout | abandoned (by key) | hangup | failed. waited_ms: until
    they were connected, or left.
    """

    kind: ClassVar[str] = "queue.left"
    queue: str
    reason: str
    waited_ms: int = 0


@dataclass(frozen=True, slots=True)
class QueueServed(Event):
    """In the record of an agent that dialled in: a caller was with them, from `queue.connected` to here."""

    kind: ClassVar[str] = "queue.served"
    queue: str
    call: str
    lasted_ms: int = 0


@dataclass(frozen=True, slots=True)
class VoicemailLeft(Event):
    """A message lies in a box. ended_by: key | silence | max | hangup."""

    kind: ClassVar[str] = "voicemail.left"
    box: str
    path: str
    duration_ms: int
    ended_by: str


@dataclass(frozen=True, slots=True)
class VoicemailTranscribed(Event):
    """What a message says. It may come when the call is long over. text: empty when there were no words."""

    kind: ClassVar[str] = "voicemail.transcribed"
    box: str
    path: str
    text: str = private()
    language: str = ""
    took_ms: int = 0


# --- the recording ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RecordingStarted(Event):
    kind: ClassVar[str] = "recording.started"
    path: str


@dataclass(frozen=True, slots=True)
class RecordingPaused(Event):
    kind: ClassVar[str] = "recording.paused"
    at_sample: int


@dataclass(frozen=True, slots=True)
class RecordingResumed(Event):
    kind: ClassVar[str] = "recording.resumed"
    at_sample: int


@dataclass(frozen=True, slots=True)
class RecordingStopped(Event):
    kind: ClassVar[str] = "recording.stopped"
    path: str
    samples: int
    dropped_frames: int = 0


@dataclass(frozen=True, slots=True)
class RecordingFailed(Event):
    kind: ClassVar[str] = "recording.failed"
    path: str
    reason: str


# --- the conversation -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VoiceStarted(Event):
    kind: ClassVar[str] = "voice.started"
    probability: float


@dataclass(frozen=True, slots=True)
class VoiceStopped(Event):
    """silence_ms: silence seen so far when this was decided."""

    kind: ClassVar[str] = "voice.stopped"
    silence_ms: int
    voiced_ms: int


@dataclass(frozen=True, slots=True)
class TurnEnded(Event):
    """The caller's turn is over and the agent may speak. reason: silence | max_turn | digits."""

    kind: ClassVar[str] = "turn.ended"
    reason: str
    silence_ms: int
    voiced_ms: int


@dataclass(frozen=True, slots=True)
class BargeIn(Event):
    """decision: paused | speech | noise | backchannel. heard_ms: how much of the agent's words had been played."""

    kind: ClassVar[str] = "turn.barge_in"
    decision: str
    heard_ms: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Speculation(Event):
    """state: started | kept | discarded, with the reason (caller_went_on, transcript_changed, barge_in, ...)."""

    kind: ClassVar[str] = "turn.speculation"
    state: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Transcript(Event):
    kind: ClassVar[str] = "stt.transcript"
    text: str = private()
    final: bool = True
    engine: str = ""
    language: str = ""
    audio_ms: int = 0
    queued_ms: int = 0
    took_ms: int = 0
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class ModelSpan(Event):
    """One request to a language model, when it ended. outcome: complete | cancelled | failed."""

    kind: ClassVar[str] = "llm.span"
    engine: str
    outcome: str
    first_token_ms: int | None
    took_ms: int
    tokens_in: int | None = None
    tokens_out: int | None = None
    text: str = private()


@dataclass(frozen=True, slots=True)
class ToolSpan(Event):
    kind: ClassVar[str] = "tool.span"
    name: str
    ok: bool
    took_ms: int
    arguments: str = private()
    result: str = private()


@dataclass(frozen=True, slots=True)
class ClauseSynthesised(Event):
    kind: ClassVar[str] = "tts.clause"
    text: str = private()
    engine: str = ""
    voice: str = ""
    cached: bool = False
    first_audio_ms: int = 0
    took_ms: int = 0
    audio_ms: int = 0


@dataclass(frozen=True, slots=True)
class Spoken(Event):
    """What of a text the caller really heard. heard: the part of text that was played, cut at a word."""

    kind: ClassVar[str] = "tts.spoken"
    text: str = private()
    heard: str = private()
    heard_ms: int = 0
    audio_ms: int = 0
    complete: bool = True


@dataclass(frozen=True, slots=True)
class TurnLatency(Event):
    """From the end of the caller's speech to the first agent audio handed to the wire, and what was spent where.

    Stages overlap with the endpoint wait when speculation runs, so they need not add up to total_ms.
    """

    kind: ClassVar[str] = "turn.latency"
    total_ms: int
    endpoint_ms: int
    stt_ms: int
    llm_ms: int
    tts_ms: int
    playout_ms: int
    speculative: bool


# --- what went wrong --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProviderFailed(Event):
    """An engine failed or was too slow; next is the engine that took over, empty if none was left."""

    kind: ClassVar[str] = "fault.provider"
    part: str  # stt | llm | tts | vad
    engine: str
    error: str
    next: str = ""


@dataclass(frozen=True, slots=True)
class WatchdogFired(Event):
    """watchdog: agent_silent | caller_unheard | max_duration. action: retry | fallback | failed."""

    kind: ClassVar[str] = "fault.watchdog"
    watchdog: str
    action: str


@dataclass(frozen=True, slots=True)
class Fault(Event):
    """Anything else that the operator should see in the call's record."""

    kind: ClassVar[str] = "fault.other"
    where: str
    error: str


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
