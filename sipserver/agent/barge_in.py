"""The caller makes a sound while the agent speaks: is it speech, a noise or a backchannel? Pure.

The agent is paused at the first loud chunk; the judgement falls at the latest decide_ms later:

    voice shorter than min_voice_ms            noise: go on where it stopped
    transcript in time, nothing in it          noise
    transcript in time, only "mhm", "ja" ...   backchannel: go on
    transcript in time, anything else          speech: the agent falls silent, the sound becomes the caller's turn
    no transcript, still voiced at decide_ms   speech
    no transcript, silent at decide_ms         by duration: >= 250 ms voiced is speech, less is noise
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sipserver.agent.phrases import is_backchannel

Kind = Literal["speech", "noise", "backchannel"]
SPEECH_MS = 250
TRANSCRIBE_AFTER_MS = 64
"""Silence after which the sound is transcribed: shorter than for a turn, since the decision has to fall soon."""


@dataclass(frozen=True, slots=True)
class Judgement:
    kind: Kind
    reason: str


def too_short(voiced_ms: int) -> Judgement:
    return Judgement("noise", f"only {voiced_ms} ms voiced")


def by_transcript(text: str, language: str) -> Judgement:
    if not text.strip():
        return Judgement("noise", "no words in it")
    if is_backchannel(text, language):
        return Judgement("backchannel", "listener's noise")
    return Judgement("speech", "words")


def by_duration(voiced_ms: int, *, still_voiced: bool) -> Judgement:
    """When decide_ms is over and no transcript has come."""
    if still_voiced:
        return Judgement("speech", f"still speaking after {voiced_ms} ms voiced")
    if voiced_ms >= SPEECH_MS:
        return Judgement("speech", f"{voiced_ms} ms voiced, no transcript in time")
    return Judgement("noise", f"{voiced_ms} ms voiced, no transcript in time")
