"""Who picked up: a person, a machine, a fax, nobody; and when the machine's beep has gone.

Owns the decision, from energy and timing alone. Refuses to know calls, and what is done about the answer.

A person says a few words and waits; a recording talks on. So: quiet after a short greeting is a person; a greeting
that is longer, or of more words, is a machine's; nothing at all is `silence`. A steady tone is never speech: after a
greeting it is the beep, at 2100 or 1100 Hz a fax, at 340-500 Hz before any word a telephone system that answers early
and still rings: the clocks then wait.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sipserver.audio.cadence import Cadence, Signal, is_fax_answer, is_key, is_progress
from sipserver.audio.frame import FRAME_MS, Frame
from sipserver.audio.greeting import Greeting, Levels, greeting_in
from sipserver.audio.levels import FLOOR_DBFS
from sipserver.audio.tone_watch import Tone, ToneWatch

_EVERY_FRAMES = 3
"""How often the greeting is judged: it costs twice as much as a frame's look."""
_TONE_MS = 100
"""Tones from this length on are no voice. Vowels stay below, but for a few at 120 ms."""
_ENDLESS_MS = 4000
"""No beep and no ring lasts so long."""
_CONTRAST_DB = 8.0
"""What must lie between a person's words and the silence after them; music is nowhere quiet."""
_BEEP_SPREAD_HZ = 10.0
_BEEP_DROP_DB = 10.0
_AFTER_BEEP_MS = 100
_AGAIN_MS = 650
"""A tone at the pitch of call progress may be the first of a busy signal: the next would come within this time."""
_RINGING_HZ, _RINGING_MS = (410.0, 435.0), 850
"""After a greeting it is ringing that has this pitch and length (1 s in most of Europe; longer ones are no beeps)."""
_BETWEEN_RINGS_MS = 6500
"""Longest pause of a ringing signal (5 s in Austria), and some."""


class Who(enum.StrEnum):
    HUMAN = "human"
    MACHINE = "machine"
    BEEP = "beep"
    SILENCE = "silence"
    FAX = "fax"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Parameters:
    """Times in ms of sound heard since the answer. In brackets what Asterisk's AMD has by default, and why not here.

    initial_silence_ms: nothing heard for so long is `silence` (2500: but recordings begin late, people lift slowly).
    greeting_ms: a longer greeting, its pauses included, is a machine's (1500: a firm's people say more than that).
    after_greeting_silence_ms: quiet for so long after a greeting is a person who waits (800).
    long_greeting_ms, after_long_silence_ms: the same after a greeting that is this long: more of them are machines'
    between two sentences, and a person who said so much bears the wait (none).
    total_analysis_ms: no decision by then is `unknown`; a silence that has begun is still awaited (5000).
    min_word_ms: shorter sounds are clicks (100). between_words_ms: shorter gaps do not part words (50).
    maximum_words: more words within greeting_ms are a machine's (3: fluent speech has more gaps than words).
    quietest_dbfs: softer sounds are no voice, whatever the floor (about -42: silence_threshold 256).
    beep_ms: from `machine` on, how long to wait for the beep; 0: `machine` is said at once.
    beep_silence_ms: a machine that is quiet for so long records already, beep or not; 0: wait all the time.
    beep_low_hz, beep_high_hz, beep_shortest_ms, beep_longest_ms: what a beep is.
    longest_ringing_ms: of a system that answers early and rings on.
    """

    initial_silence_ms: int = 3500
    greeting_ms: int = 2600
    after_greeting_silence_ms: int = 800
    long_greeting_ms: int = 1600
    after_long_silence_ms: int = 1100
    total_analysis_ms: int = 5000
    min_word_ms: int = 100
    between_words_ms: int = 60
    maximum_words: int = 7
    quietest_dbfs: float = -50.0
    beep_ms: int = 0
    beep_silence_ms: int = 3000
    beep_low_hz: float = 300.0
    beep_high_hz: float = 2500.0
    beep_shortest_ms: int = 120
    beep_longest_ms: int = 1200
    longest_ringing_ms: int = 60_000


@dataclass(frozen=True, slots=True)
class Decision:
    """at_ms: of sound heard. why: the numbers that decided, for people. greeting: what was said until then."""

    who: Who
    at_ms: int
    why: str
    greeting: Greeting


class Answerer:
    """Listens to the far end of one call from the answer on. Feed frames in order; one thread.

    Costs 5-8 ms of CPU a second of sound. Holds 5 kB, and 250 bytes for each second beyond ten.
    """

    def __init__(self, parameters: Parameters | None = None) -> None:
        self._rule = parameters or Parameters()
        self._tones = ToneWatch()
        self._cadence = Cadence()
        self._levels: Levels = np.full(512, FLOOR_DBFS, np.float32)
        self._toned: NDArray[np.bool_] = np.zeros(512, np.bool_)
        self._count = 0
        self._rang_until_ms = 0
        self._said = Greeting()
        self._beep: Tone | None = None
        self._machine: Decision | None = None
        self.decision: Decision | None = None

    @property
    def known(self) -> Decision | None:
        """What is known so far: the decision, or that it is a machine whose beep is awaited."""
        return self.decision or self._machine

    def overrule(self, decision: Decision) -> None:
        """Somebody knows better, from what was said: HUMAN or MACHINE. A machine's beep is then awaited by the frames
        that follow the last one heard, if the parameters say so.
        """
        self.decision = self._machine = None
        self._settle(decision)

    def hear(self, frame: Frame) -> Decision | None:
        """Take 20 ms. Returns the decision from the frame on in which it falls; later frames change nothing."""
        if self.decision is None:
            ended = self._tones.hear(frame)
            self._keep(self._tones.look.level_dbfs)
            decision = self._by_tone(ended)
            if decision is None and self._count % _EVERY_FRAMES == 0:
                self._listen()
                decision = self._await_beep(self._machine) if self._machine else self._by_greeting(self._said)
            self._settle(decision)
        return self.decision

    def _settle(self, decision: Decision | None) -> None:
        """A machine is said at once, or when its beep has come or stayed away."""
        waits = decision is not None and decision.who is Who.MACHINE and self._machine is None and self._rule.beep_ms
        if waits:
            self._machine = decision
        else:
            self.decision = decision

    # --- tones --------------------------------------------------------------------------------------------------------

    def _by_tone(self, ended: Tone | None) -> Decision | None:
        decision = self._judge(ended) if ended is not None else None
        sounding = self._tones.sounding
        if decision is None and sounding is not None:
            if is_fax_answer(sounding):
                return self._say(Who.FAX, f"{_told(sounding)}, the answer of a fax")
            if sounding.duration_ms >= _ENDLESS_MS:
                return self._say(Who.UNKNOWN, f"a tone of {sounding.low_hz:.0f} Hz that does not end")
            if self._rings(sounding):
                self._rang_until_ms = self._now_ms
        return self._beep_is_over(self._beep) if decision is None and self._beep is not None else decision

    def _judge(self, tone: Tone) -> Decision | None:
        """A tone has ended: a fax that calls, the network's own tones, busy, perhaps the beep."""
        if tone.duration_ms >= _TONE_MS or is_key(tone):
            first, last = tone.start_ms // FRAME_MS - 1, tone.end_ms // FRAME_MS + 3
            self._toned[max(0, first) : last] = True  # the looks at its edges hold something of it
        if tone.duration_ms < _TONE_MS:
            return None
        self._listen()
        signal = self._cadence.hear(tone)
        if signal is Signal.BUSY:
            return self._over_by(f"a busy signal, {_told(tone)}")
        if signal is Signal.FAX_CALLS_ON or (signal is Signal.FAX_CALLS and not self._said.words):
            return self._say(Who.FAX, f"{_told(tone)}, the call of a fax")
        if signal is Signal.INFORMATION:
            return self._say(Who.MACHINE, "the three tones before an announcement of the network")
        if self._may_be_beep(tone):
            self._beep = tone
        return None

    def _rings(self, tone: Tone) -> bool:
        """Ringing, not a beep: at the pitch of call progress, and before any word, or exactly ringing."""
        if not self._said.words:
            return is_progress(tone)
        return _RINGING_HZ[0] <= tone.low_hz <= _RINGING_HZ[1] and tone.duration_ms >= _RINGING_MS

    def _may_be_beep(self, tone: Tone) -> bool:
        rule = self._rule
        return (
            tone.pure
            and tone.spread_hz <= _BEEP_SPREAD_HZ
            and rule.beep_low_hz <= tone.low_hz <= rule.beep_high_hz
            and rule.beep_shortest_ms <= tone.duration_ms <= rule.beep_longest_ms
            and not self._rings(tone)
        )

    def _beep_is_over(self, beep: Tone) -> Decision | None:
        """A beep is followed by quiet; music and speech go on."""
        first = beep.end_ms // FRAME_MS + 3
        if (self._levels[first : self._count] > beep.level_dbfs - _BEEP_DROP_DB).any():
            self._beep = None
        elif self._now_ms - beep.end_ms >= (_AGAIN_MS if is_progress(beep) else _AFTER_BEEP_MS):
            said = f"after a greeting of {self._said.duration_ms} ms" if self._said.words else "without a greeting"
            return self._say(Who.BEEP, f"{_told(beep)} {said}")
        return None

    def _await_beep(self, machine: Decision) -> Decision | None:
        rule, quiet_ms = self._rule, self._said.silence_ms
        if self._tones.sounding is not None or self._beep is not None:
            return None
        if rule.beep_silence_ms and quiet_ms >= rule.beep_silence_ms:
            return self._over_by(f"no beep, {quiet_ms} ms of silence")
        if self._now_ms - machine.at_ms >= rule.beep_ms:
            return self._over_by(f"no beep within {rule.beep_ms} ms")
        return None

    # --- the greeting -------------------------------------------------------------------------------------------------

    def _by_greeting(self, said: Greeting) -> Decision | None:
        rule = self._rule
        if said.words > rule.maximum_words or said.duration_ms >= rule.greeting_ms:
            return self._say(Who.MACHINE, f"a greeting of {said.duration_ms} ms or more, {said.words} words")
        if self._tones.sounding is not None or self._beep is not None:
            return None
        if not said.words:
            return self._by_silence()
        waits_ms = (
            rule.after_long_silence_ms if said.duration_ms >= rule.long_greeting_ms else rule.after_greeting_silence_ms
        )
        is_quiet = said.contrast_db >= _CONTRAST_DB
        if is_quiet and said.silence_ms >= waits_ms:
            return self._say(Who.HUMAN, f"{_greeted(said)}, then {said.silence_ms} ms of silence")
        listened_ms = self._listened_ms - (rule.after_long_silence_ms if is_quiet else 0)
        return self._over_by(f"{_greeted(said)}, and no end of it") if listened_ms >= rule.total_analysis_ms else None

    def _by_silence(self) -> Decision | None:
        rule, listened_ms = self._rule, self._listened_ms
        if self._rang_until_ms:
            if self._now_ms >= rule.longest_ringing_ms or listened_ms >= max(
                _BETWEEN_RINGS_MS, rule.initial_silence_ms
            ):
                return self._say(Who.UNKNOWN, f"ringing until {self._rang_until_ms} ms, and no word")
        elif listened_ms >= min(rule.initial_silence_ms, rule.total_analysis_ms):
            return self._say(Who.SILENCE, f"no word for {listened_ms} ms")
        return None

    # --- what was heard -----------------------------------------------------------------------------------------------

    @property
    def _now_ms(self) -> int:
        return FRAME_MS * self._count

    @property
    def _listened_ms(self) -> int:
        """Since the answer, or since it rang last; then the first word may be the rest of a pause away."""
        rang = bool(self._rang_until_ms and self._said.words)
        return self._now_ms - (self._said.start_ms if rang else self._rang_until_ms)

    def _say(self, who: Who, why: str) -> Decision:
        return Decision(who, self._now_ms, why, self._said)

    def _over_by(self, why: str) -> Decision:
        """There is nothing more to wait for: whatever is known stands."""
        known = self._machine
        return self._say(Who.MACHINE, f"{known.why}; {why}") if known is not None else self._say(Who.UNKNOWN, why)

    def _keep(self, level_dbfs: float) -> None:
        if self._count + 3 >= len(self._levels):
            self._levels = np.concatenate((self._levels, np.full_like(self._levels, FLOOR_DBFS)))
            self._toned = np.concatenate((self._toned, np.zeros_like(self._toned)))
        self._levels[self._count] = level_dbfs
        self._count += 1

    def _listen(self) -> None:
        rule, sounding = self._rule, self._tones.sounding
        toned = self._toned[: self._count]
        if sounding is not None:
            toned = toned.copy()
            toned[max(0, sounding.start_ms // FRAME_MS - 1) :] = True
        self._said = greeting_in(
            self._levels[: self._count],
            toned,
            min_word_ms=rule.min_word_ms,
            between_words_ms=rule.between_words_ms,
            quietest_dbfs=rule.quietest_dbfs,
        )


def _told(tone: Tone) -> str:
    pitch = f"{tone.low_hz:.0f} and {tone.high_hz:.0f}" if tone.high_hz else f"{tone.low_hz:.0f}"
    return f"{pitch} Hz for {tone.duration_ms} ms"


def _greeted(said: Greeting) -> str:
    return f"a greeting of {said.duration_ms} ms ({said.words} words, the longest {said.longest_ms} ms)"
