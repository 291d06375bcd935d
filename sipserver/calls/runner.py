"""Runs a flow of the dialplan on a call: one step after another, and the branches between them.

Owns the place in the dialplan and the variables; and errands: a step that somebody outside asks for, which interrupts
the step that runs. Unless an errand ends the call, the flow then goes on with that step, from its beginning. What is to
be said to a party that is joined with others interrupts nothing. Refuses to know what steps do (their executors do).
"""

from __future__ import annotations

import asyncio

from sipserver.agent.voice import Voice
from sipserver.calls.aside import Aside
from sipserver.calls.call import Call
from sipserver.calls.scene import Left, Scene
from sipserver.calls.states import EndReason, State
from sipserver.calls.steps import EXECUTORS, Executor, placing
from sipserver.dialplan.plan import Flow, Plan
from sipserver.dialplan.steps import END, NEXT, Hold, Placing, Play, Say, Speaking, Step
from sipserver.errors import CallerError, CarrierError, InternalError
from sipserver.events import CallOnHold, StepEntered, StepLeft
from sipserver.yaml_file import KeyPath

MOST_STEPS_AT_ONCE = 200
AT_ONCE_MS = 5

ERRAND = "(errand)"
"""What the record names as the flow of a step that somebody asked for."""
INTERRUPTED = "interrupted"

ANNOUNCEMENTS = (Say, Play)
"""Errands that leave a party joined with whom it is joined with."""

_ENDINGS = {
    "failed": EndReason.PROVIDER_FAILED,
    "silence": EndReason.SILENCE_WATCHDOG,
    "max_duration": EndReason.MAX_DURATION,
}
"""What a call dies of when a branch leads to `end`, by outcome; all others are the dialplan's hangup."""


class Busy(CallerError):
    """What was asked for cannot be now."""

    http_code = 409


class Runner:
    """One call's way through its dialplan. Loop thread."""

    def __init__(self, call: Call, plan: Plan, flow: Flow, variables: dict[str, str]) -> None:
        services = call.services
        voice = Voice(services.engines.tts, call.emit, services.speech_cache, clock=services.clock)
        self._scene = Scene(call, plan, voice, variables, self._take_part)
        self._call, self._plan, self._flow = call, plan, flow
        self._index = 0
        self._at_once = 0
        self._errand: Step | None = None
        self._works: asyncio.Task[None] | None = None
        """Set while a step of the flow runs: what an errand interrupts."""
        self._begun = False
        self._announces = False
        self._said = asyncio.Event()

    @property
    def _aside(self) -> Aside:
        return self._call.wiring.aside

    def send(self, step: Step) -> None:
        """Have a step run now instead of the one that runs, or, where the call is joined with others and this is an
        announcement to it, beside it. Returns at once; the record tells what came of it.

        Raises CallerError (409) before the call is answered or its flow has begun, while another errand waits or runs,
        and where it would interrupt a step `secure`; for a sound or a voice that there is not; NotAllowed for a target
        that the plan does not allow.
        """
        self._require_answered()
        if self._errand is not None or self._announces:
            raise Busy("the call is being asked for something else already")
        self._require_possible(step)
        if self._aside.kept and isinstance(step, ANNOUNCEMENTS):
            self._announces = True
            self._said.clear()
            self._call.beside(self._announce(step), f"announcement to {self._call.id}")
            return
        self._require_open()
        self._errand = step
        self._interrupt()

    def _require_possible(self, step: Step) -> None:
        for key in step.sounds:
            if (name := getattr(step, key)) and not self._plan.offers(name):
                raise CallerError(
                    f"the dialplan offers no sound {name!r}: name a file that it plays itself, or one in the folder "
                    f"{self._plan.tenant}/ beside it"
                )
        voices = self._call.services.engines.tts
        if isinstance(step, Speaking) and step.tts and step.tts not in voices:
            raise CallerError(f"no voice engine {step.tts!r} runs here; there are {', '.join(voices) or 'none'}")
        if isinstance(step, Placing):
            placing.check(step, self._scene)

    def hold(self) -> None:
        """Have the call wait in music until its `aside` says otherwise. Unless it is joined with others, that
        interrupts the step that runs. Idempotent. Raises CallerError (409) before the call is answered or its flow has
        begun, and where it would interrupt a step `secure`.
        """
        self._require_answered()
        if not self._aside.kept:
            self._require_open()
        if self._aside.hold(True):
            self._call.emit(CallOnHold(on=True))
        if not self._aside.kept:
            self._interrupt()

    async def ask(self, step: Step, into: str) -> None:
        """Run a step that stands in no flow, and keep its outcome as a variable. Otherwise as `run`."""
        left = await EXECUTORS[type(step)](step, self._scene)
        self._scene.set(into, left.outcome)

    async def run(self) -> None:
        """Until a step ends the call, a branch leads to `end`, or a flow has no further step.

        Safe to cancel: the step that runs is cancelled and told as left. Raises what a step raises that is no outcome.
        """
        self._begun = True
        while self._call.state not in (State.ENDING, State.ENDED):
            if self._announces:  # the caller was parted from the others meanwhile, and hears one thing at a time
                await self._said.wait()
                continue
            if self._aside.on_hold:
                await self._take(Hold(), ERRAND, 0, 0)
                continue
            if self._errand is not None:
                await self._run_errand(self._errand)
                continue
            if self._index >= len(self._flow.steps):
                self._call.end(EndReason.DIALPLAN_HANGUP, f"end of flow {self._flow.name}")
                return
            step = self._flow.steps[self._index]
            began_ms = self._call.at_ms
            left = await self._interruptible(step)
            if left.outcome == INTERRUPTED:
                continue
            self._go(left.target or step.target(left.outcome), left)
            await self._breathe(self._call.at_ms - began_ms)

    def _require_answered(self) -> None:
        if not self._begun or self._call.state is not State.ANSWERED:
            raise Busy("the call is not answered, or is ending")

    def _require_open(self) -> None:
        """What is being typed would be kept from the interruption on, and asked for once more."""
        if self._call.screen.secured:
            raise Busy("the call is in a step `secure`, which nothing interrupts: ask again when it is over")

    def _interrupt(self) -> None:
        if self._works is not None:
            self._works.cancel()

    async def _interruptible(self, step: Step) -> Left:
        self._works = asyncio.current_task()
        try:
            return await self._take(step, self._flow.name, self._index, self._flow.lines[self._index])
        except asyncio.CancelledError:
            asked = self._errand is not None or self._aside.on_hold
            if not asked or self._call.state in (State.ENDING, State.ENDED) or self._works is None:
                raise
            self._works.uncancel()
            return Left(INTERRUPTED)
        finally:
            self._works = None

    async def _announce(self, step: Step) -> None:
        """A step that fails is told, and changes nothing."""
        try:
            with self._aside.announcement():
                await self._take(step, ERRAND, 0, 0)
        finally:
            self._announces = False
            self._said.set()

    async def _run_errand(self, step: Step) -> None:
        try:
            left = await self._take(step, ERRAND, 0, 0)
            if step.target(left.outcome) == END:
                self._go(END, left)
        finally:
            self._errand = None

    async def _take(self, step: Step, flow: str, index: int, line: int) -> Left:
        word, entered_ms = step.word, self._call.at_ms
        left = Left("cancelled")
        self._call.emit(StepEntered(flow=flow, index=index, step=word, line=line))
        try:
            if step.answers:
                await self._call.answer()
            elif step.needs_media:
                await self._call.open_media()
            left = await _executor(step)(step, self._scene)
        except CarrierError:
            left = Left("gone")
            raise
        except Exception:
            left = Left("broken")
            raise
        finally:
            took_ms = self._call.at_ms - entered_ms
            self._call.emit(StepLeft(flow=flow, index=index, step=word, outcome=left.outcome, took_ms=took_ms))
        return left

    async def _take_part(self, step: Step, place: KeyPath) -> Left:
        flow, index = self._flow.name, self._index
        return await self._take(step, flow, index, self._plan.line(flow, index, place))

    def _go(self, target: str, left: Left) -> None:
        if target == NEXT:
            self._index += 1
        elif target == END:
            reason = left.reason or _ENDINGS.get(left.outcome, EndReason.DIALPLAN_HANGUP)
            self._call.end(reason, f"{left.outcome} in flow {self._flow.name}", code=left.code)
        else:
            self._flow, self._index = self._plan.flows[target], 0

    async def _breathe(self, took_ms: int) -> None:
        """A loop of steps that take no time must not hold the other calls up.

        The dialplan's check refuses those that it can see; it cannot see a prompt that fails at once and is put again.
        """
        self._at_once = 0 if took_ms > AT_ONCE_MS else self._at_once + 1
        if self._at_once > MOST_STEPS_AT_ONCE:
            raise InternalError(f"flow {self._flow.name} loops without waiting")
        await asyncio.sleep(0)


def _executor(step: Step) -> Executor:
    """Of its class, or of the one that it is a kind of."""
    return next(EXECUTORS[kind] for kind in type(step).__mro__ if kind in EXECUTORS)
