"""set, when, goto: steps that only decide."""

from __future__ import annotations

from sipserver.calls.scene import Left, Scene
from sipserver.dialplan import steps


async def set_variables(step: steps.SetStep, scene: Scene) -> Left:
    """In the order of the file, so that a value may name a variable set just before."""
    for name, source in step.values.items():
        scene.set(name, scene.text(source))
    return Left()


async def when(step: steps.When, scene: Scene) -> Left:
    return Left("decided", step.branch(scene.variables))


async def goto(step: steps.Goto, _scene: Scene) -> Left:
    return Left(target=step.flow)
