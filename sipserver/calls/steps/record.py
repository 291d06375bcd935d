"""record: start, stop, pause, resume."""

from __future__ import annotations

from sipserver.calls.scene import Left, Scene
from sipserver.dialplan import steps


async def record(step: steps.Record, scene: Scene) -> Left:
    """An action that changes nothing (pause while nothing runs) is no mistake."""
    tape = scene.call.tape
    match step.action:
        case "start":
            tape.start(stereo=step.stereo)
        case "pause":
            tape.pause()
        case "resume":
            tape.resume()
        case "stop":
            await tape.stop()
    return Left()
