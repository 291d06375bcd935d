"""One sound of the caller over the agent's words, from the pause to the judgement: the shell around `barge_in`.

Owns the pause, the deadline and the transcript that may come in time. What follows from the judgement is done by the
conversation. A transcript that comes too late may still turn a noise into speech, so that a short "stop" is not lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np

from sipserver.agent import barge_in
from sipserver.agent.announcement import Speaker
from sipserver.agent.barge_in import Judgement
from sipserver.agent.ears import Ears
from sipserver.agent.kit import Kit
from sipserver.agent.tasks import Tasks
from sipserver.agent.transcriber import Heard
from sipserver.agent.turn import Decision, Dismissed, Ended, TurnState, VoicePaused, WentOn
from sipserver.audio.frame import Samples
from sipserver.events import BargeIn

Judged = Callable[["Interruption", Judgement], None]


class Interruption:
    """Loop thread; nothing blocks. Pauses the playout as it is made; `judged` is called once, or twice if too late.

    samples: the sound judged. heard: its transcript if it came. ended: the turn's end if it ended undecided.
    """

    def __init__(self, kit: Kit, ears: Ears, speaker: Speaker, tasks: Tasks, judged: Judged) -> None:
        kit.playout.pause()
        self._kit, self._ears, self._tasks, self._judged = kit, ears, tasks, judged
        self.speaker = speaker
        self.samples: Samples = np.zeros(0, np.int16)
        self.heard: Heard | None = None
        self.ended: Ended | None = None
        self.judgement: Judgement | None = None
        self._voiced_ms = 0
        self._transcript: asyncio.Task[Heard] | None = None
        self._emit("paused", "voice")
        ears.hurry(barge_in.TRANSCRIBE_AFTER_MS)
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(kit.options.turn.decide_ms / 1000, self._decide)

    def decided(self, decision: Decision) -> None:
        """What the caller's voice does while the judgement is open."""
        if isinstance(decision, Dismissed):
            self._settle(barge_in.too_short(decision.voiced_ms))
        elif isinstance(decision, VoicePaused):
            self._transcribe(decision.voiced_ms)
        elif isinstance(decision, WentOn):
            self._drop_transcript()
        elif isinstance(decision, Ended):
            self._turn_ended(decision)

    def drop(self) -> None:
        """The conversation is over or the agent was cut for another reason."""
        self._deadline.cancel()
        self._ears.hurry(None)
        self._drop_transcript()

    def _transcribe(self, voiced_ms: int) -> None:
        """The caller is silent for a moment: the sound so far is worth a transcript."""
        self._voiced_ms = voiced_ms
        self.samples = self._ears.samples()
        self._transcript = self._tasks.start(
            "barge-in transcript", self._kit.transcriber.transcribe(self.samples), self._transcribed
        )

    def _drop_transcript(self) -> None:
        if self._transcript is not None:
            self._transcript.cancel()
            self._transcript = None

    def _turn_ended(self, ended: Ended) -> None:
        """The turn is over before the judgement fell; the judgement decides whether it is one."""
        self.ended = ended
        self._voiced_ms = ended.voiced_ms
        if self._transcript is None:
            self.samples = self._ears.samples()
            self._decide()

    def _decide(self) -> None:
        still_voiced = self.ended is None and self._ears.state in {TurnState.ONSET, TurnState.VOICE}
        voiced_ms = self._voiced_ms if self.ended is not None else self._ears.voiced_ms
        self._settle(barge_in.by_duration(voiced_ms, still_voiced=still_voiced))

    def _transcribed(self, task: asyncio.Task[Heard]) -> None:
        if task.cancelled() or task is not self._transcript or task.exception() is not None:
            return
        self.heard = task.result()
        self._kit.emit(self.heard.event(final=False))
        self._settle(barge_in.by_transcript(self.heard.text, self.heard.language or self._kit.language))

    def _settle(self, judgement: Judgement) -> None:
        if self.judgement is None:
            self._deadline.cancel()
            self._ears.hurry(None)
        elif self.judgement.kind == "speech" or judgement.kind != "speech":
            return
        else:
            judgement = Judgement("speech", f"{judgement.reason}, transcript came late")
        self.judgement = judgement
        if judgement.kind == "speech" and self.heard is None:
            self._drop_transcript()
        self._emit(judgement.kind, judgement.reason)
        self._judged(self, judgement)

    def _emit(self, decision: str, reason: str) -> None:
        self._kit.emit(BargeIn(decision, self.speaker.saying.heard_ms, reason))
