"""amd: who answered the call that we placed."""

from __future__ import annotations

from sipserver.calls.answerer import Detection, parameters
from sipserver.calls.scene import Left, Scene
from sipserver.dialplan import steps
from sipserver.events import AnswererDetected


async def amd(step: steps.Amd, scene: Scene) -> Left:
    """It hears what was said since the answer, though other steps came in between; but not what is older than
    `answerer.KEPT_MS`: then it listens from now on, as it does on calls that we did not place.
    """
    call = scene.call
    detection = Detection(parameters(step.wait_s, step.beep_s))
    first_words = call.wiring.recall()
    late_ms = 0 if first_words or call.answered_at_ms is None else call.at_ms - call.answered_at_ms
    for frame in first_words:
        detection.hear(frame)
    with call.wiring.listening(detection.hear):
        decision = await detection.decision()
    call.emit(AnswererDetected(answerer=decision.who.value, after_ms=late_ms + decision.at_ms, why=decision.why))
    return Left(decision.who.value)
