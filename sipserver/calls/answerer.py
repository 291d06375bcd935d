"""Finding out who answered: what was said since the answer, and the wait for the decision.

Owns the first words of a party, kept until somebody asks, and one detection at work. The decision itself is
`audio.answerer`'s; what is done about it is the dialplan's.
"""

from __future__ import annotations

import asyncio

from sipserver.audio.answerer import Answerer, Decision, Parameters, Who
from sipserver.audio.frame import FRAME_MS, Frame
from sipserver.audio.greeting import Greeting

KEPT_MS = 6_000
"""How late after the answer a step may come and still hear its first words: 190 kB a call."""

STALLED_S = 3.0
"""Without a single frame for so long there is no media, and nothing to wait for."""

_INITIAL_SILENCE_PART = 0.7


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
    """One decision about one party. Loop thread."""

    def __init__(self, rule: Parameters) -> None:
        self._answerer = Answerer(rule)
        self._heard = 0
        self._decided = asyncio.Event()

    def hear(self, frame: Frame) -> None:
        """Take 20 ms of the party, in order."""
        self._heard += 1
        if self._answerer.hear(frame) is not None:
            self._decided.set()

    async def decision(self) -> Decision:
        """Wait for it. `unknown` when no media arrive. Safe to cancel."""
        while self._answerer.decision is None:
            heard = self._heard
            try:
                async with asyncio.timeout(STALLED_S):
                    await self._decided.wait()
            except TimeoutError:
                if self._heard == heard:
                    return Decision(Who.UNKNOWN, heard * FRAME_MS, f"no sound arrives for {STALLED_S:g} s", Greeting())
        return self._answerer.decision
