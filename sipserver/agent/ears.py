"""What the caller does with their voice: the VAD stream, the turn taker and the utterance of one call, wired together.

Owns nothing but the wiring and the events that tell it. Decisions go to one listener, synchronously, on the loop.
"""

from __future__ import annotations

from collections.abc import Callable

from sipserver.agent.options import TurnOptions
from sipserver.agent.turn import (
    Decision,
    Dismissed,
    Ended,
    Onset,
    TurnRules,
    TurnState,
    TurnTaker,
    VoiceBegan,
    VoicePaused,
)
from sipserver.agent.utterance import Utterance
from sipserver.audio.frame import Frame, Samples
from sipserver.events import Emit, TurnEnded, VoiceStarted, VoiceStopped
from sipserver.speech.contract import Vad


class Ears:
    """Loop thread. `hear` keeps a reference and feeds the detector; judgements come back through on_probability."""

    def __init__(self, vad: Vad, options: TurnOptions, emit: Emit, listener: Callable[[Decision], None]) -> None:
        rules = TurnRules(
            options.end_silence_ms,
            min(options.speculate_after_ms, options.end_silence_ms),
            options.min_voice_ms,
            options.max_turn_s,
        )
        self._taker = TurnTaker(rules)
        self._utterance = Utterance(max_s=options.max_turn_s)
        self._emit, self._listener = emit, listener
        self._muted = False
        self._closed = False
        self._stream = vad.stream(self._judged)

    @property
    def state(self) -> TurnState:
        return self._taker.state

    @property
    def voiced_ms(self) -> int:
        return self._taker.voiced_ms

    @property
    def voice_end_ns(self) -> int:
        return self._taker.voice_end_ns

    def hear(self, frame: Frame) -> None:
        if not self._closed:
            self._utterance.hear(frame)
            self._stream.hear(frame)

    def samples(self) -> Samples:
        """The caller's turn so far, with pre-roll."""
        return self._utterance.samples()

    def forget(self) -> None:
        """What was heard belongs to nobody: the turn begins anew with the next voice."""
        self._taker.reset()
        self._utterance.drop()

    def hurry(self, speculate_after_ms: int | None) -> None:
        self._taker.hurry(speculate_after_ms)

    def mute(self, muted: bool) -> None:
        """Ignore voices (the agent speaks and must not be interrupted). A voice that lasts is noticed afterwards."""
        if muted != self._muted:
            self._muted = muted
            self.forget()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._stream.close()

    def _judged(self, probability: float, at_ns: int) -> None:
        if self._muted or self._closed:
            return
        decision = self._taker.step(probability, at_ns)
        if decision is None:
            return
        if isinstance(decision, Onset):
            self._utterance.begin(decision.at_ns)
        elif isinstance(decision, Dismissed):
            self._utterance.drop()
        elif isinstance(decision, VoiceBegan):
            self._emit(VoiceStarted(decision.probability))
        elif isinstance(decision, VoicePaused):
            self._emit(VoiceStopped(decision.silence_ms, decision.voiced_ms))
        elif isinstance(decision, Ended):
            self._emit(TurnEnded(decision.reason, decision.silence_ms, decision.voiced_ms))
        self._listener(decision)
        if isinstance(decision, Ended):
            self._utterance.drop()
