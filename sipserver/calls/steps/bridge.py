"""bridge: the caller and somebody else hear each other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from sipserver.audio.frame import Samples
from sipserver.calls import music, waiting
from sipserver.calls.join import joined
from sipserver.calls.outbound import Outcome
from sipserver.calls.party import Party
from sipserver.calls.scene import Left, Scene
from sipserver.calls.states import EndReason, State
from sipserver.calls.steps import placing
from sipserver.dialplan import steps
from sipserver.errors import CallerError, CapacityError

ENDINGS = {
    "media_timeout": EndReason.MEDIA_TIMEOUT,
    "max_duration": EndReason.MAX_DURATION,
}
"""What the call dies of when it ends with the connection."""

GONE = 480
"""What an unanswered caller gets when the party answered and was gone at once."""


async def bridge(step: steps.Bridge, scene: Scene) -> Left:
    """The caller's 200 follows the party's. Whatever ends the step, the party is hung up."""
    try:
        party = Party(scene.call, placing.order(step, scene))
    except (CallerError, CapacityError) as problem:
        return placing.refused(step, scene, problem)
    samples = await placing.sound(step, scene)
    async with party:
        async with _waiting(step, scene, party, samples):
            outcome = await party.answer()
        if outcome is not Outcome.ANSWERED:
            return placing.left(outcome, GONE if party.status == 200 else party.status)
        await scene.call.answer()
        async with (
            _recorded(step, scene),
            joined(scene.call, party, music=samples, rtp_timeout_s=step.rtp_timeout_s) as join,
        ):
            reason = await join.over(step.max_s)
    return placing.left(Outcome.ANSWERED, reason=ENDINGS.get(reason))


@asynccontextmanager
async def _recorded(step: steps.Bridge, scene: Scene) -> AsyncIterator[None]:
    """Record for the length of an `async with` block if the step asks for it, unless a recording runs already.

    A call that ends closes its recording itself, when everybody has been hung up: a slow disk delays no BYE.
    """
    tape = scene.call.tape
    if not step.record or tape.running:
        yield
        return
    await tape.start()
    try:
        yield
    finally:
        if scene.call.state is not State.ENDING:
            await tape.stop()


def _waiting(
    step: steps.Bridge, scene: Scene, party: Party, samples: Samples | None
) -> AbstractAsyncContextManager[None]:
    if step.progress == "pass":
        return waiting.passed(scene.call, party)
    plays_music = samples is not None and scene.call.state is not State.RINGING
    return waiting.local(scene.call, samples if plays_music and samples is not None else music.ringing())
