"""Finding out who answered: what was said since the answer, and the wait for the decision.

Owns the first words of a party, kept until somebody asks, and one detection at work, which weighs what the words say
against energy and timing. The decision itself is `audio.answerer`'s; what is done about it is the dialplan's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sipserver.audio.answerer import Answerer, Decision, Parameters, Who
from sipserver.audio.frame import FRAME_MS, Frame, Samples
from sipserver.audio.greeting import Greeting

KEPT_MS = 6_000
"""How late after the answer a step may come and still hear its first words: 190 kB a call."""

STALLED_S = 3.0
"""Without a single frame for so long there is no media, and nothing to wait for."""

WORDS_MS = 10_000
"""The last so much of what was said is written down: 320 kB a call, while it is undecided."""

_INITIAL_SILENCE_PART = 0.7
_LEAD_IN_MS = 200
_WEIGHED = frozenset({Who.HUMAN, Who.MACHINE, Who.UNKNOWN})
"""Tones and silence have no words."""


@dataclass(frozen=True, slots=True)
class Words:
    """What the words say. who: MACHINE, HUMAN, or None when they do not tell; note: in words, for the record."""

    who: Who | None
    note: str


AskWords = Callable[[Samples], Coroutine[Any, Any, Words]]
"""Hears what was said, 16 kHz. Bounds its own time; never raises for an engine that fails."""


class FirstWords:
    """What a party says from its answer on, for KEPT_MS. Loop thread.

    Overflow: when it is full nobody came in time, and all of it is forgotten: words with a gap after them would lie.
    """

    def __init__(self) -> None:
        self._frames: list[Frame] = []
        self._answered = False
        self.wanted = True
        """Whether it takes more."""

    def answered(self) -> None:
        """What came before (early media: ringing, announcements) is nobody's answer."""
        self._answered = True

    def hear(self, frame: Frame) -> None:
        if not (self.wanted and self._answered):
            return
        if len(self._frames) >= KEPT_MS // FRAME_MS:
            self.wanted = False
            self._frames.clear()
        else:
            self._frames.append(frame)

    def take(self) -> list[Frame]:
        """All frames since the answer, without a gap up to now; none when it is too late. Takes no more then."""
        frames, self._frames, self.wanted = self._frames, [], False
        return frames


def parameters(wait_s: float, beep_s: float) -> Parameters:
    """For a decision within wait_s, and for the beep within beep_s after it. A silent far end is told earlier, so that
    somebody who speaks late has the rest of the time.
    """
    wait_ms = round(1000 * wait_s)
    return Parameters(
        total_analysis_ms=wait_ms,
        initial_silence_ms=round(_INITIAL_SILENCE_PART * wait_ms),
        beep_ms=round(1000 * beep_s),
    )


class Detection:
    """One decision about one party. Loop thread.

    ask_words: asked once, when energy and timing have come to a person, a machine or nothing; what it finds decides
    against them. Nothing that is heard meanwhile is lost: a beep after it still counts.
    """

    def __init__(self, rule: Parameters, ask_words: AskWords | None = None) -> None:
        self._answerer = Answerer(rule)
        self._ask_words = ask_words
        self._weighs = ask_words is not None
        self._heard = 0
        self._said: deque[Samples] = deque(maxlen=WORDS_MS // FRAME_MS)
        self._late: list[Frame] = []
        self._note, self._weighed_ms = "", 0
        self._known, self._decided = asyncio.Event(), asyncio.Event()

    def hear(self, frame: Frame) -> None:
        """Take 20 ms of the party, in order."""
        self._heard += 1
        if self._weighs:
            self._said.append(frame.samples)
            if self._answerer.decision is not None:  # the words may open it again
                self._late.append(frame)
        self._feed(frame)

    async def decision(self) -> Decision:
        """Wait for it. `unknown` when no media arrive. Safe to cancel."""
        if not await self._wait(self._known):
            return self._stalled()
        if self._ask_words is not None and self._weighs:
            await self._weigh(self._ask_words)
        if not await self._wait(self._decided) or (decision := self._answerer.decision) is None:
            return self._stalled()
        why = decision.why if self._note in decision.why else f"{decision.why}; {self._note}"
        return replace(decision, at_ms=max(decision.at_ms, self._weighed_ms), why=why)

    async def _weigh(self, ask_words: AskWords) -> None:
        """Let the words speak, unless the beep comes first: then a machine records, whatever it has said."""
        timing = self._answerer.known
        if timing is not None and timing.who in _WEIGHED and timing.greeting.words:
            asking = asyncio.create_task(ask_words(self._sound(timing.greeting)), name="words of a greeting")
            deciding = asyncio.create_task(self._decided.wait(), name="a beep before the words")
            try:
                both = {asking} if self._answerer.decision is not None else {asking, deciding}
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                if self._answerer.known is timing:
                    self._settle(timing, asking.result())
            finally:
                for task in (asking, deciding):
                    task.cancel()
                await asyncio.gather(asking, deciding, return_exceptions=True)
        self._weighs = False
        self._said.clear()
        self._late.clear()

    def _settle(self, timing: Decision, words: Words) -> None:
        self._note, self._weighed_ms = words.note, self._heard * FRAME_MS
        if words.who is None or words.who is timing.who:
            return
        why = f"{words.note}, against energy and timing ({timing.who}: {timing.why})"
        self._answerer.overrule(Decision(words.who, self._weighed_ms, why, timing.greeting))
        if self._answerer.decision is None:
            self._decided.clear()
        for frame in self._late:
            self._feed(frame)
        if self._answerer.decision is not None:
            self._decided.set()

    def _sound(self, greeting: Greeting) -> Samples:
        """From a little before the first word on."""
        before = self._heard - len(self._said)
        first = max(0, (greeting.start_ms - _LEAD_IN_MS) // FRAME_MS - before)
        return np.concatenate(list(self._said)[first:])

    def _feed(self, frame: Frame) -> None:
        self._answerer.hear(frame)
        if self._answerer.known is not None and (self._weighs or self._answerer.decision is not None):
            self._known.set()
        if self._answerer.decision is not None:
            self._decided.set()

    async def _wait(self, event: asyncio.Event) -> bool:
        """Whether it came; not when no media arrive."""
        while not event.is_set():
            heard = self._heard
            try:
                async with asyncio.timeout(STALLED_S):
                    await event.wait()
            except TimeoutError:
                if self._heard == heard:
                    return False
        return True

    def _stalled(self) -> Decision:
        return Decision(Who.UNKNOWN, self._heard * FRAME_MS, f"no sound arrives for {STALLED_S:g} s", Greeting())
