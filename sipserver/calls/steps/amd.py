"""amd: who answered the call that we placed."""

from __future__ import annotations

from sipserver.agent.transcriber import Transcriber
from sipserver.audio.answerer import Who
from sipserver.audio.frame import Samples
from sipserver.calls.answerer import Detection, Words, parameters
from sipserver.calls.greeting_words import of_transcript
from sipserver.calls.scene import Left, Scene
from sipserver.dialplan import steps
from sipserver.errors import ProviderError
from sipserver.events import AnswererDetected, Fault

WORDS_S = 2.0
"""So long the words may take, all engines together: somebody waits at the other end."""

_NOTES = {
    Who.MACHINE: "the words are those of a recording",
    Who.HUMAN: "the words are a person's",
    None: "the words do not tell",
}


async def amd(step: steps.Amd, scene: Scene) -> Left:
    """It hears what was said since the answer, though other steps came in between; but not what is older than
    `answerer.KEPT_MS`: then it listens from now on, as it does on calls that we did not place.
    """
    call = scene.call

    async def ask_words(samples: Samples) -> Words:
        return await _words(step, scene, samples)

    detection = Detection(parameters(step.wait_s, step.beep_s), ask_words if step.transcript else None)
    first_words = call.wiring.recall()
    late_ms = 0 if first_words or call.answered_at_ms is None else call.at_ms - call.answered_at_ms
    for frame in first_words:
        detection.hear(frame)
    with call.wiring.listening(detection.hear):
        decision = await detection.decision()
    call.emit(AnswererDetected(answerer=decision.who.value, after_ms=late_ms + decision.at_ms, why=decision.why))
    return Left(decision.who.value)


async def _words(step: steps.Amd, scene: Scene, samples: Samples) -> Words:
    call, chain = scene.call, scene.plan.chain()
    transcriber = Transcriber(call.services.engines.stt, chain, step.language, WORDS_S / len(chain), call.emit)
    try:
        heard = await transcriber.transcribe(samples)
    except ProviderError as problem:
        call.emit(Fault(where="amd", error=f"decided without the words: {problem}"))
        return Words(None, "there is no transcript")
    call.emit(heard.event(final=True))
    who = of_transcript(heard.text)
    return Words(who, _NOTES[who])
