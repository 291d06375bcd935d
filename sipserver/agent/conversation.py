"""A conversation between a caller and an agent: who has the floor, and what happens when that changes.

Owns the floor and the way out (`_end`). The voice is judged in `ears`, a sound over the agent's words in
`interruption`, an answer is made in `reply`, what may have to be thrown away is kept in `speculation`, faults are
counted in `watchdogs`.
Refuses to know SIP, YAML and codecs.

    floor       caller's turn ends      sound of the caller          agent has finished
    LISTENING   -> SPEAKING             (speculation, no change)     -
    SPEAKING    -                       -> DECIDING (agent paused)   -> LISTENING
    DECIDING    (the judgement tells)   speech -> LISTENING, noise -> SPEAKING
    any         -> CLOSING when it ends
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Mapping
from functools import partial

from sipserver.agent import phrases
from sipserver.agent.announcement import Announcement, Speaker
from sipserver.agent.barge_in import Judgement
from sipserver.agent.chain import Clock
from sipserver.agent.ears import Ears
from sipserver.agent.interruption import Interruption
from sipserver.agent.keypad import Keypad
from sipserver.agent.kit import Kit, equip
from sipserver.agent.options import AgentOptions, DigitSource, Engines, Outcome
from sipserver.agent.reply import Answer, Reply
from sipserver.agent.speculation import Speculation
from sipserver.agent.tasks import Tasks
from sipserver.agent.timer import Timer
from sipserver.agent.transcriber import Heard
from sipserver.agent.turn import Decision, Dismissed, Ended, Onset, TurnState, VoicePaused, WentOn
from sipserver.agent.voice import Voice
from sipserver.agent.watchdogs import AgentSilent, CallerUnheard
from sipserver.audio.frame import Frame, Samples
from sipserver.audio.playout import Playout
from sipserver.errors import ProviderError
from sipserver.events import Emit, Fault, TurnEnded, WatchdogFired

_LOOK_S = 1.0
_SILENT_GRACE_S = 1.0
"""The agent may be silent for the providers' timeout and this much longer."""


class Floor(enum.Enum):
    LISTENING = enum.auto()
    SPEAKING = enum.auto()
    DECIDING = enum.auto()
    CLOSING = enum.auto()


class Conversation:
    """One agent step of one call. Loop thread; `run` is to be called once, `hear` every 20 ms while it runs."""

    def __init__(
        self,
        options: AgentOptions,
        engines: Engines,
        playout: Playout,
        emit: Emit,
        digits: DigitSource,
        variables: Mapping[str, str],
        voice: Voice,
        *,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        self._options, self._playout, self._emit, self._clock = options, playout, emit, clock
        self._vad = engines.vad
        self._kit: Kit = equip(options, engines, playout, emit, digits, variables, voice, clock)
        self._floor = Floor.LISTENING
        self._speaker: Speaker | None = None
        self._task: asyncio.Task[Answer] | None = None
        self._ears: Ears | None = None
        self._interruption: Interruption | None = None
        self._speculation = Speculation(emit)
        self._tasks = Tasks(self._broken)
        self._silence = Timer(self._nudge)
        self._look = Timer(self._look_after_agent)
        self._keypad = Keypad(self._typed)
        self._agent_silent = AgentSilent(int((options.provider_timeout_s + _SILENT_GRACE_S) * 1000))
        self._unheard = CallerUnheard()
        self._voiced_ms = 0
        self._nudges = 0

    def hear(self, frame: Frame) -> None:
        """20 ms of the caller. Loop thread; only keeps a reference and notices what the media clock took."""
        if self._ears is not None:
            self._ears.hear(frame)
            if self._speaker is not None:
                self._speaker.measure(frame.at_ns)

    def digit(self, digit: str) -> None:
        """A digit that nobody collects: the agent falls silent; after the last one the digits are the caller's turn."""
        if self._ears is None or (self._speaker is not None and self._speaker.busy):
            return
        self._silence.stop()
        self._speculation.discard("digits")
        self._fall_silent()
        self._ears.forget()
        self._keypad.press(digit)

    async def run(self) -> Outcome:
        """Talk until it is over. Raises nothing but CancelledError.

        However it ends, the playout is flushed and no task, timer or connection is left.
        """
        self._verdict: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._options.max_duration_s):
                self._ears = Ears(self._vad, self._options.turn, self._emit, self._decided)
                self._tasks.start("prepare", self._kit.prepare(self._greet()))
                return await self._verdict
        except TimeoutError:
            self._emit(WatchdogFired("max_duration", "failed"))
            return Outcome("max_duration")
        finally:
            await self._close()

    def _greet(self) -> asyncio.Event:
        greeting = Announcement(self._kit, self._options.greeting)
        self._speak(greeting)
        return greeting.queued

    def _decided(self, decision: Decision) -> None:
        """What the caller's voice does. What must be quick happens here, without a task in between."""
        if self._floor is Floor.CLOSING:
            return
        if self._interruption is not None:
            self._interruption.decided(decision)
        elif isinstance(decision, Onset):
            self._voice_began()
        elif isinstance(decision, Dismissed):
            self._listen_on()
        elif isinstance(decision, VoicePaused):
            self._speculate()
        elif isinstance(decision, WentOn):
            self._speculation.discard("caller_went_on")
        elif isinstance(decision, Ended):
            self._turn_ended(decision)

    def _voice_began(self) -> None:
        self._silence.stop()
        if self._floor is Floor.SPEAKING and self._ears is not None and self._speaker is not None:
            self._set_floor(Floor.DECIDING)
            self._interruption = Interruption(self._kit, self._ears, self._speaker, self._tasks, self._judged)

    def _judged(self, interruption: Interruption, judgement: Judgement) -> None:
        late = self._interruption is not interruption
        if self._floor is Floor.CLOSING or self._ears is None or (late and self._speaker is not interruption.speaker):
            return
        self._interruption = None
        if judgement.kind != "speech":
            self._playout.resume()
            self._ears.forget()
            self._set_floor(Floor.LISTENING if self._speaker is None else Floor.SPEAKING)
            self._listen_on()
            return
        self._fall_silent()
        source = interruption.heard or interruption.samples
        if interruption.ended is not None:
            self._answer(interruption.ended, source)
        elif late:
            self._answer(Ended("silence", 0, 0, self._clock()), source)
        elif self._ears.state is TurnState.PAUSE:
            self._speculate(interruption.heard)

    def _speculate(self, heard: Heard | None = None) -> None:
        if self._ears is not None and self._floor is Floor.LISTENING:
            source = heard or self._ears.samples()
            reply = Reply(self._kit, source, voice_end_ns=self._ears.voice_end_ns, held=True)
            self._speculation.begin(reply, self._start(reply))

    def _turn_ended(self, ended: Ended) -> None:
        if self._ears is None or self._floor is not Floor.LISTENING:
            return
        held = self._speculation.keep()
        if held is None:
            self._answer(ended, self._ears.samples())
            return
        reply, task = held
        reply.release()
        self._voiced_ms = ended.voiced_ms
        self._give_floor(reply, task)
        if task.done():
            self._spoken(reply, task)

    def _answer(self, ended: Ended, source: Samples | Heard) -> None:
        self._voiced_ms = ended.voiced_ms
        self._speak(Reply(self._kit, source, voice_end_ns=ended.voice_end_ns))

    def _speak(self, speaker: Speaker, *, retry: bool = False) -> None:
        self._give_floor(speaker, self._start(speaker), retry=retry)

    def _start(self, speaker: Speaker) -> asyncio.Task[Answer]:
        return self._tasks.start(type(speaker).__name__.lower(), speaker.run(), partial(self._spoken, speaker))

    def _give_floor(self, speaker: Speaker, task: asyncio.Task[Answer], *, retry: bool = False) -> None:
        self._speaker, self._task = speaker, task
        self._set_floor(Floor.SPEAKING)
        self._silence.stop()
        if not retry:
            self._agent_silent.begin(self._clock())
        self._look.start(_LOOK_S)
        if self._ears is not None and self._options.turn.barge_in == "off":
            self._ears.mute(True)

    def _spoken(self, speaker: Speaker, task: asyncio.Task[Answer]) -> None:
        """A speaker's task has ended: by itself, by a fault, or because it was cut."""
        if speaker is not self._speaker:
            if not task.cancelled() and not self._speculation.holds(speaker):
                task.exception()  # cut or discarded: what became of it no longer matters
            return
        self._speaker = self._task = None
        self._look.stop()
        if self._floor is Floor.CLOSING or task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._broken(task.get_name(), error)
            return
        answer = task.result()
        if answer.outcome is not None:
            self._end(answer.outcome)
        elif answer.unheard:
            self._nothing_heard()
        else:
            if isinstance(speaker, Reply):
                self._unheard.heard()
                self._nudges = 0
            self._listen()

    def _nothing_heard(self) -> None:
        action = self._unheard.unheard(self._voiced_ms)
        if action is not None:
            self._emit(WatchdogFired("caller_unheard", action))
        if action == "failed":
            self._fail("no words in the caller's voice")
        elif action == "retry":
            self._speak(Announcement(self._kit, phrases.reprompt(self._kit.language)))
        elif unanswered := self._kit.history.unanswered:
            again = Heard(unanswered, self._kit.language)
            self._speak(Reply(self._kit, again, voice_end_ns=self._clock(), told=True))
        else:
            self._listen()

    def _listen(self) -> None:
        if self._floor is not Floor.DECIDING:
            self._set_floor(Floor.LISTENING)
        if self._ears is not None:
            self._ears.mute(False)
        self._listen_on()

    def _listen_on(self) -> None:
        if self._floor is Floor.LISTENING and not self._speculation.active:
            self._silence.start(self._options.silence_s)

    def _fall_silent(self) -> None:
        """The caller has the floor now: cut the agent, keep what was heard of it."""
        if self._interruption is not None:
            self._interruption.drop()
            self._interruption = None
        speaker, task = self._speaker, self._task
        self._speaker = self._task = None
        self._look.stop()
        if speaker is not None:
            speaker.cut()
        if task is not None:
            task.cancel()
        self._playout.flush()
        if self._floor is not Floor.CLOSING:
            self._set_floor(Floor.LISTENING)

    def _nudge(self) -> None:
        """Nobody has spoken for silence_s."""
        if self._nudges >= self._options.max_nudges or not self._options.nudge:
            self._end(Outcome("silence"))
            return
        self._nudges += 1
        self._speak(Announcement(self._kit, self._options.nudge))

    def _typed(self, digits: str) -> None:
        self._emit(TurnEnded("digits", 0, 0))
        heard = Heard(f"I typed {' '.join(digits)} on the telephone.", self._kit.language)
        self._speak(Reply(self._kit, heard, voice_end_ns=self._clock()))

    def _look_after_agent(self) -> None:
        speaker = self._speaker
        if speaker is None:
            return
        self._look.start(_LOOK_S)
        excused = speaker.busy or self._floor is Floor.DECIDING
        action = self._agent_silent.look(self._clock(), speaker.saying.heard_ms, excused=excused)
        if action is None:
            return
        self._emit(WatchdogFired("agent_silent", action))
        self._fall_silent()
        if action == "failed":
            self._fail("the agent was silent")
            return
        self._speak(speaker.again(), retry=True)

    def _broken(self, where: str, error: BaseException) -> None:
        if not isinstance(error, ProviderError):
            self._emit(Fault(where, f"{type(error).__name__}: {error}"))
        self._fail(str(error))

    def _fail(self, detail: str) -> None:
        """Nothing helps any more: apologise and leave."""
        if self._floor is Floor.CLOSING:
            return
        self._fall_silent()
        self._stop_timers()
        self._set_floor(Floor.CLOSING)
        self._tasks.start("apology", self._kit.apologise(), lambda _: self._end(Outcome("failed", detail)))

    def _end(self, outcome: Outcome) -> None:
        self._set_floor(Floor.CLOSING)
        if not self._verdict.done():
            self._verdict.set_result(outcome)

    def _set_floor(self, floor: Floor) -> None:
        self._floor = floor

    def _stop_timers(self) -> None:
        for timer in (self._silence, self._look, self._keypad):
            timer.stop()

    async def _close(self) -> None:
        self._set_floor(Floor.CLOSING)
        self._stop_timers()
        self._speculation.discard("conversation_over")
        self._fall_silent()
        if self._ears is not None:
            self._ears.close()
        await self._tasks.close()
        await self._kit.toolbox.close()
