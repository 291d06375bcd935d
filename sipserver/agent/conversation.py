"""A conversation between a caller and an agent: what follows from what either of them does.

Owns the decisions and the way out (`_end`). Who has the floor is kept in `floor`; the caller's voice is judged in
`ears`, a sound over the agent's words in `interruption`; an answer is made in `reply`, what may have to be thrown away
is kept in `speculation`, faults are counted in `watchdogs`. Refuses to know SIP, YAML and codecs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from functools import partial

from sipserver.agent import phrases
from sipserver.agent.announcement import Announcement, Speaker
from sipserver.agent.barge_in import Judgement
from sipserver.agent.chain import Clock
from sipserver.agent.ears import Ears
from sipserver.agent.floor import Floor, FloorState
from sipserver.agent.interruption import Interruption
from sipserver.agent.keypad import Keypad
from sipserver.agent.kit import equip
from sipserver.agent.options import AgentOptions, DigitSource, Engines, Fetch, Outcome
from sipserver.agent.reply import Answer, Reply
from sipserver.agent.speculation import Speculation
from sipserver.agent.summons import Summons
from sipserver.agent.tasks import Tasks
from sipserver.agent.timer import Timer
from sipserver.agent.transcriber import Heard
from sipserver.agent.turn import Decision, Dismissed, Ended, TurnState, VoicePaused, WentOn
from sipserver.agent.voice import Voice
from sipserver.agent.watchdogs import AgentSilent, CallerUnheard
from sipserver.audio.frame import Frame, Samples
from sipserver.audio.noise import NoiseSuppressor
from sipserver.audio.playout import Playout
from sipserver.errors import ProviderError
from sipserver.events import Emit, Fault, TurnEnded, WatchdogFired

_LOOK_S = 1.0
_GRACE_S = 1.0
"""The agent may be silent for the providers' timeout and this much longer."""


class Conversation:
    """One agent step of one call. Loop thread; `run` is to be called once, `hear` every 20 ms while it runs.

    options: with the variables of prompt and greeting filled in. variables: for the URLs and headers of tools.
    fetch: calls a person while the conversation goes on; None: who wants a person is left to whoever runs this.
    """

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
        fetch: Fetch | None = None,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        self._options, self._playout, self._emit, self._clock = options, playout, emit, clock
        self._vad = engines.vad
        level = options.noise_suppression
        self._suppressor = None if level == "off" else NoiseSuppressor(level)
        self._tasks = Tasks(self._broken)
        self._summons = None if fetch is None else Summons(fetch, self._tasks, self._fetched)
        summon = None if self._summons is None else self._summons.begin
        self._kit = equip(options, engines, playout, emit, digits, variables, voice, clock, summon)
        self._floor = Floor(playout, self._floor_changed)
        self._ears: Ears | None = None
        self._interruption: Interruption | None = None
        self._speculation = Speculation(emit)
        self._silence = Timer(self._nudge)
        self._look = Timer(self._look_after_agent)
        self._keypad = Keypad(self._typed)
        self._agent_silent = AgentSilent(int((options.provider_timeout_s + _GRACE_S) * 1000))
        self._unheard = CallerUnheard()
        self._voiced_ms = 0
        self._nudges = 0

    def hear(self, frame: Frame) -> None:
        """20 ms of the caller. Loop thread; only keeps a reference and notices what the media clock took."""
        if self._ears is not None:
            self._ears.hear(frame if self._suppressor is None else self._suppressor.clean(frame))
            if self._floor.speaker is not None:
                self._floor.speaker.measure(frame.at_ns)

    def digit(self, digit: str) -> None:
        """A digit that nobody collects: the agent falls silent; after the last one the digits are the caller's turn."""
        if self._ears is None or (self._floor.speaker is not None and self._floor.speaker.busy):
            return
        self._fall_silent("digits")
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
                greeting = Announcement(self._kit, self._options.greeting)
                self._speak(greeting)
                self._tasks.start("prepare", self._kit.prepare(greeting.queued))
                return await self._verdict
        except TimeoutError:
            self._emit(WatchdogFired("max_duration", "failed"))
            return Outcome("max_duration")
        finally:
            await self._close()

    def _decided(self, decision: Decision) -> None:
        """What the caller's voice does. What must be quick happens here, without a task in between."""
        if self._floor.closing or self._ears is None:
            return
        self._silence.stop()
        speaker = self._floor.speaker
        if self._floor.state is FloorState.SPEAKING and speaker is not None and self._interruption is None:
            self._floor.become(FloorState.DECIDING)
            self._interruption = Interruption(self._kit, self._ears, speaker, self._tasks, self._judged)
        if self._interruption is not None:
            self._interruption.decided(decision)
        elif isinstance(decision, Dismissed):
            self._wait()
        elif isinstance(decision, VoicePaused):
            self._speculate(self._ears.samples(), self._ears.voice_end_ns)
        elif isinstance(decision, WentOn):
            self._speculation.discard("caller_went_on")
        elif isinstance(decision, Ended):
            self._turn_ended(decision, self._ears.samples())

    def _judged(self, interruption: Interruption, judgement: Judgement) -> None:
        """A sound over the agent's words was judged; late: it had been taken for a noise before."""
        late = self._interruption is not interruption
        if self._floor.closing or self._ears is None or (late and self._floor.speaker is not interruption.speaker):
            return
        if judgement.kind != "speech":
            self._interruption = None
            self._playout.resume()
            self._ears.forget()
            self._floor.become(FloorState.LISTENING if self._floor.speaker is None else FloorState.SPEAKING)
            self._wait()
            return
        self._fall_silent("barge_in")
        source = interruption.heard or interruption.samples
        if interruption.ended is not None:
            self._answer(interruption.ended, source)
        elif self._ears.state is TurnState.PAUSE:
            self._speculate(source, self._ears.voice_end_ns)
        elif late and self._ears.state is TurnState.QUIET:
            self._answer(Ended("silence", 0, 0, self._clock()), source)

    def _speculate(self, source: Samples | Heard, voice_end_ns: int) -> None:
        self._tell_model()
        reply = Reply(self._kit, source, voice_end_ns=voice_end_ns, held=True)
        self._speculation.begin(reply, self._start(reply))

    def _turn_ended(self, ended: Ended, samples: Samples) -> None:
        held = self._speculation.keep()
        if held is None:
            self._answer(ended, samples)
            return
        reply, task = held
        reply.release()
        self._voiced_ms = ended.voiced_ms
        self._give_floor(reply, task)
        if task.done():
            self._spoken(reply, task)

    def _answer(self, ended: Ended, source: Samples | Heard) -> None:
        self._voiced_ms = ended.voiced_ms
        self._tell_model()
        self._speak(Reply(self._kit, source, voice_end_ns=ended.voice_end_ns))

    def _typed(self, digits: str) -> None:
        self._fall_silent("digits")
        self._emit(TurnEnded("digits", 0, 0))
        self._answer(
            Ended("digits", 0, 0, self._clock()),
            Heard(f"I typed {' '.join(digits)} on the telephone.", self._kit.language),
        )

    def _nothing_heard(self) -> None:
        action = self._unheard.unheard(self._voiced_ms)
        if action is not None:
            self._emit(WatchdogFired("caller_unheard", action))
        if action == "failed":
            self._fail("no words in the caller's voice")
        elif action == "retry":
            self._speak(Announcement(self._kit, phrases.reprompt(self._kit.language)))
        elif unanswered := self._kit.history.unanswered:
            self._answer_told(unanswered)
        else:
            self._listen()

    def _answer_told(self, words: str) -> None:
        """Answer words that are in the history already."""
        heard = Heard(words, self._kit.language)
        self._speak(Reply(self._kit, heard, voice_end_ns=self._clock(), told=True))

    def _speak(self, speaker: Speaker, *, retry: bool = False) -> None:
        self._give_floor(speaker, self._start(speaker), retry=retry)

    def _start(self, speaker: Speaker) -> asyncio.Task[Answer]:
        return self._tasks.start(type(speaker).__name__.lower(), speaker.run(), partial(self._spoken, speaker))

    def _give_floor(self, speaker: Speaker, task: asyncio.Task[Answer], *, retry: bool = False) -> None:
        self._silence.stop()
        self._floor.give(speaker, task)
        if not retry:
            self._agent_silent.begin(self._clock())
        self._look.start(_LOOK_S)

    def _spoken(self, speaker: Speaker, task: asyncio.Task[Answer]) -> None:
        """A speaker's task has ended: by itself, by a fault, or because it was cut."""
        error = None if task.cancelled() else task.exception()
        if not self._floor.finished(speaker) or self._floor.closing or task.cancelled():
            return  # it was cut, or is held and looked at when the turn ends
        if error is not None:
            self._broken(task.get_name(), error)
        elif (outcome := task.result().outcome) is not None:
            self._wants_out(outcome)
        elif task.result().unheard:
            self._nothing_heard()
        else:
            if isinstance(speaker, Reply):
                self._unheard.heard()
                self._nudges = 0
            self._listen()

    def _listen(self) -> None:
        if self._interruption is None:
            self._floor.become(FloorState.LISTENING)
        self._tasks.start("warm", self._kit.warm())
        self._wait()

    def _wait(self) -> None:
        """Nobody speaks now: that must not last for ever."""
        if self._floor.state is FloorState.LISTENING and not self._speculation.active and not self._break_news():
            self._silence.start(self._options.silence_s)

    def _fall_silent(self, reason: str) -> None:
        """The caller has the floor now."""
        self._silence.stop()
        self._speculation.discard(reason)
        if self._interruption is not None:
            self._interruption.drop()
            self._interruption = None
        self._floor.take()

    def _nudge(self) -> None:
        """Nobody has spoken for silence_s. Who waits for a person need not speak."""
        if self._summons is not None and self._summons.under_way:
            self._speak(Announcement(self._kit, phrases.calling(self._kit.language)))
            return
        if self._nudges >= self._options.max_nudges or not self._options.nudge:
            self._end(Outcome("silence"))
            return
        self._nudges += 1
        self._speak(Announcement(self._kit, self._options.nudge))

    def _wants_out(self, outcome: Outcome) -> None:
        """A speaker ended with an outcome: mostly the conversation's."""
        if outcome.kind != "transfer" or self._summons is None:
            self._end(outcome)
            return
        self._summons.begin(outcome.detail)  # a model without tools; who asks again is told the same again
        self._speak(Announcement(self._kit, phrases.calling(self._kit.language)))

    def _fetched(self, summons: Summons) -> None:
        """A person was called; what came of it is known."""
        if summons.error is not None:
            self._broken("fetch", summons.error)
        elif summons.answered:
            self._stop("handed_over")
            self._end(Outcome("transfer", summons.reason))
        elif self._floor.state is FloorState.LISTENING and not self._speculation.active:
            self._break_news()

    def _break_news(self) -> bool:
        """Nobody has the floor. Unless the caller begins to speak, tell them that nobody comes, if they do not know."""
        quiet = self._interruption is None and self._ears is not None and self._ears.state is TurnState.QUIET
        news = self._tell_model() if quiet else ""
        if news:
            self._answer_told(news)
        return bool(news)

    def _tell_model(self) -> str:
        """Put what came of a call for a person into the history if the model does not know it yet; what was put."""
        news = "" if self._summons is None else self._summons.news()
        if news:
            self._kit.history.add_user(news)
        return news

    def _look_after_agent(self) -> None:
        speaker = self._floor.speaker
        if speaker is None:
            return
        self._look.start(_LOOK_S)
        excused = speaker.busy or self._floor.state is FloorState.DECIDING
        action = self._agent_silent.look(self._clock(), speaker.saying.heard_ms, excused=excused)
        if action is None:
            return
        self._emit(WatchdogFired("agent_silent", action))
        self._fall_silent("agent_silent")
        if action == "retry":
            self._speak(speaker.again(), retry=True)
        else:
            self._fail("the agent was silent")

    def _broken(self, where: str, error: BaseException) -> None:
        if not isinstance(error, ProviderError):
            self._emit(Fault(where, f"{type(error).__name__}: {error}"))
        self._fail(str(error))

    def _fail(self, detail: str) -> None:
        """Nothing helps any more: apologise and leave."""
        if not self._floor.closing:
            self._stop("failed")
            self._tasks.start("apology", self._kit.apologise(), lambda _: self._end(Outcome("failed", detail)))

    def _end(self, outcome: Outcome) -> None:
        self._floor.become(FloorState.CLOSING)
        if not self._verdict.done():
            self._verdict.set_result(outcome)

    def _stop(self, reason: str) -> None:
        self._fall_silent(reason)
        self._floor.become(FloorState.CLOSING)
        for timer in (self._silence, self._look, self._keypad):
            timer.stop()

    def _floor_changed(self, state: FloorState) -> None:
        if self._ears is not None:
            self._ears.mute(state is FloorState.SPEAKING and self._options.turn.barge_in == "off")

    async def _close(self) -> None:
        self._stop("conversation_over")
        if self._ears is not None:
            self._ears.close()
        await self._tasks.close()
        await self._kit.toolbox.close()
