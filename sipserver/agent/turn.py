"""Turn taking: a pure state machine over probabilities of speech. Owns no clock, no sound, no task.

It is stepped with every judged chunk (probability, end of the chunk on the monotonic clock) and answers with decisions.
Hysteresis as Silero's authors use it: voice starts at 0.5, silence below 0.35; what lies between changes nothing.

    state     chunk                        next      decision
    QUIET     >= 0.5                       ONSET     Onset: the first loud chunk; perhaps only a click
    ONSET     voiced for min_voice_ms      VOICE     VoiceBegan
    ONSET     < 0.35                       QUIET     Dismissed: too short to be a voice
    VOICE     < 0.35 for speculate_after   PAUSE     VoicePaused: perhaps the end of the turn
    VOICE     voiced for max_turn_s        QUIET     Ended(max_turn)
    PAUSE     >= 0.5                       VOICE     WentOn: it was a pause for breath
    PAUSE     silent for end_silence_ms    QUIET     Ended(silence)
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

START = 0.5
SILENCE = 0.35
CHUNK_NS = 32_000_000
"""The length of a judged chunk: 512 samples at 16 kHz."""
MS = 1_000_000


class TurnState(enum.Enum):
    QUIET = enum.auto()
    ONSET = enum.auto()
    VOICE = enum.auto()
    PAUSE = enum.auto()


@dataclass(frozen=True, slots=True)
class Onset:
    """at_ns: when the first loud chunk began."""

    at_ns: int
    probability: float


@dataclass(frozen=True, slots=True)
class Dismissed:
    voiced_ms: int


@dataclass(frozen=True, slots=True)
class VoiceBegan:
    """at_ns: when the voice began, not when that became certain."""

    at_ns: int
    probability: float


@dataclass(frozen=True, slots=True)
class VoicePaused:
    silence_ms: int
    voiced_ms: int


@dataclass(frozen=True, slots=True)
class WentOn:
    silence_ms: int


@dataclass(frozen=True, slots=True)
class Ended:
    """reason: silence | max_turn. voice_end_ns: the end of the last voiced chunk."""

    reason: str
    silence_ms: int
    voiced_ms: int
    voice_end_ns: int


Decision = Onset | Dismissed | VoiceBegan | VoicePaused | WentOn | Ended


@dataclass(frozen=True, slots=True)
class TurnRules:
    end_silence_ms: int
    speculate_after_ms: int
    min_voice_ms: int
    max_turn_s: float


class TurnTaker:
    """The state of one caller's turn. `step` and `reset` never block, never raise; any one thread."""

    def __init__(self, rules: TurnRules) -> None:
        self._rules = rules
        self._state = TurnState.QUIET
        self._began_ns = 0
        self._voice_end_ns = 0
        self._voiced_ns = 0
        self._silent = False
        self._speculate_ms = rules.speculate_after_ms

    @property
    def state(self) -> TurnState:
        return self._state

    @property
    def voiced_ms(self) -> int:
        """Voice heard in this turn, without its pauses."""
        return self._voiced_ns // MS

    @property
    def voice_end_ns(self) -> int:
        return self._voice_end_ns

    def reset(self) -> None:
        """Forget the turn: what was heard belongs to nobody."""
        self._state = TurnState.QUIET
        self._silent = False
        self._voiced_ns = 0

    def hurry(self, speculate_after_ms: int | None) -> None:
        """Report a pause after this much silence instead of the rules' (None: as the rules say)."""
        self._speculate_ms = self._rules.speculate_after_ms if speculate_after_ms is None else speculate_after_ms

    def step(self, probability: float, at_ns: int) -> Decision | None:
        """Judge one chunk that ended at at_ns. At most one decision."""
        if self._state is TurnState.QUIET:
            return self._begin(probability, at_ns)
        if probability >= START or (probability >= SILENCE and not self._silent):
            return self._voiced(probability, at_ns)
        if probability < SILENCE:
            self._silent = True
        return self._silence(at_ns)

    def _begin(self, probability: float, at_ns: int) -> Decision | None:
        if probability < START:
            return None
        self._state = TurnState.ONSET
        self._silent = False
        self._began_ns = at_ns - CHUNK_NS
        self._voice_end_ns = at_ns
        self._voiced_ns = CHUNK_NS
        return Onset(self._began_ns, probability)

    def _voiced(self, probability: float, at_ns: int) -> Decision | None:
        silence_ms = (at_ns - CHUNK_NS - self._voice_end_ns) // MS
        self._silent = False
        self._voiced_ns += CHUNK_NS
        self._voice_end_ns = at_ns
        if self._state is TurnState.ONSET:
            if self.voiced_ms >= self._rules.min_voice_ms:
                self._state = TurnState.VOICE
                return VoiceBegan(self._began_ns, probability)
            return None
        if at_ns - self._began_ns >= self._rules.max_turn_s * 1000 * MS:
            return self._end("max_turn", at_ns)
        if self._state is TurnState.PAUSE:
            self._state = TurnState.VOICE
            return WentOn(silence_ms)
        return None

    def _silence(self, at_ns: int) -> Decision | None:
        silence_ms = (at_ns - self._voice_end_ns) // MS
        if self._state is TurnState.ONSET:
            voiced_ms = self.voiced_ms
            self.reset()
            return Dismissed(voiced_ms)
        if silence_ms >= self._rules.end_silence_ms:
            return self._end("silence", at_ns)
        if self._state is TurnState.VOICE and silence_ms >= self._speculate_ms:
            self._state = TurnState.PAUSE
            return VoicePaused(silence_ms, self.voiced_ms)
        return None

    def _end(self, reason: str, at_ns: int) -> Ended:
        ended = Ended(reason, (at_ns - self._voice_end_ns) // MS, self.voiced_ms, self._voice_end_ns)
        self.reset()
        return ended
