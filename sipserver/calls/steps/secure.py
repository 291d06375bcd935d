"""secure: steps while which nothing is kept."""

from __future__ import annotations

import asyncio

from sipserver.calls.call import Call
from sipserver.calls.scene import Left, Scene
from sipserver.calls.states import State
from sipserver.dialplan import steps
from sipserver.dialplan.steps import NEXT
from sipserver.errors import CarrierError, InternalError
from sipserver.events import SecureEnded, SecureStarted


async def secure(step: steps.Secure, scene: Scene) -> Left:
    """The steps within one after the other, until one leads out. However it ends, things are kept again afterwards, and
    what the variables were given is forgotten or, where it stays, secret.

    Raises CarrierError when the leg is gone, InternalError without a word of what went wrong when a step broke.
    """
    call, before = scene.call, dict(scene.variables)
    began_ms, reason = call.at_ms, "failed"
    call.emit(SecureStarted())
    try:
        with call.secured():
            left = await _steps(step, scene)
        reason = "left" if left.target else "done"
        if _ending(call):
            reason = "call_ended"
        return left
    except (asyncio.CancelledError, CarrierError):
        reason = "call_ended"
        raise
    except Exception as problem:  # its text may hold what nobody may keep
        raise InternalError(f"a step within secure broke: {type(problem).__name__}") from None
    finally:
        _forget(step, scene, before)
        took_ms = call.at_ms - began_ms
        call.emit(SecureEnded(reason, took_ms, hidden=call.screen.hidden))


async def _steps(step: steps.Secure, scene: Scene) -> Left:
    for index, part in enumerate(step.do):
        left = await scene.take(part, (step.word, "do", index))
        target = left.target or part.target(left.outcome)
        if target != NEXT or _ending(scene.call):
            return Left(left.outcome, target, left.code, left.reason)
    return Left()


def _ending(call: Call) -> bool:
    return call.state in (State.ENDING, State.ENDED)


def _forget(step: steps.Secure, scene: Scene, before: dict[str, str]) -> None:
    """Put the variables back, but for those that are to stay."""
    given = {name: value for name, value in scene.variables.items() if before.get(name) != value}
    kept = {name: value for name, value in given.items() if name in step.keep}
    scene.call.screen.keep_secret(tuple(kept.values()))
    scene.variables.clear()
    scene.variables.update({**before, **kept})
