"""record: start, stop, pause, resume."""

from __future__ import annotations

from sipserver.calls.scene import Left, Scene
from sipserver.dialplan import steps


async def record(step: steps.Record, scene: Scene) -> Left:
    await scene.call.tape.act(step.action, stereo=step.stereo)
    return Left()
