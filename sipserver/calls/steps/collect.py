"""collect: a question, its digits, and another try."""

from __future__ import annotations

from sipserver.calls.scene import Left, Scene
from sipserver.calls.steps.sound import prompt
from sipserver.dialplan import steps


async def collect(step: steps.Collect, scene: Scene) -> Left:
    """Digits typed ahead answer the first question before it is put. The record shows a branch, never the digits."""
    buffer = scene.call.digits
    digits = ""
    for _ in range(step.tries):
        if not buffer:
            await prompt(scene, step)
        digits = await buffer.collect(step.digits, step.timeout_s, terminator=step.terminator, between_s=step.between_s)
        if len(digits) >= step.min_digits:
            break
        buffer.clear()
    scene.set(step.into, digits)
    outcome = step.outcome(digits)
    return Left(outcome if outcome in step.outcomes else "digits", step.target(outcome))
