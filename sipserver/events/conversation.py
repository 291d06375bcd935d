"""Turns, transcripts, models, speech: an agent at work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sipserver.events.base import Event, private


@dataclass(frozen=True, slots=True)
class VoiceStarted(Event):
    """The caller began to speak."""

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
    """What the caller said, as it was understood. final: False for a guess while they speak."""

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
    """One request to a language model, when it ended. outcome: complete | cancelled | failed. tokens_in, tokens_out: as
    the engine says; None: it said nothing, or was interrupted.
    """

    kind: ClassVar[str] = "llm.span"
    engine: str
    outcome: str
    first_token_ms: int | None
    took_ms: int
    tokens_in: int | None = None
    tokens_out: int | None = None
    text: str = private()
    vendor: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class ToolSpan(Event):
    """An agent's tool was called, and what came of it."""

    kind: ClassVar[str] = "tool.span"
    name: str
    ok: bool
    took_ms: int
    arguments: str = private()
    result: str = private()


@dataclass(frozen=True, slots=True)
class ClauseSynthesised(Event):
    """A piece of what the agent says has become sound."""

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
