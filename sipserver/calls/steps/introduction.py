"""The target of a warm transfer is told who comes, and accepts or declines, by a key or by its voice.

Owns the announcement and the target's answer to it. Refuses to call the target, to connect it, and to understand words.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from sipserver.agent.transcriber import Transcriber
from sipserver.audio.frame import FRAME_MS, Frame, Samples
from sipserver.calls.consent import consents
from sipserver.calls.outbound import Outcome
from sipserver.calls.party import Party
from sipserver.calls.scene import Scene
from sipserver.calls.sentences import Sentences
from sipserver.calls.steps.sound import speak, until_digit
from sipserver.dialplan import steps
from sipserver.errors import ProviderError

TRANSCRIPT_S = 5.0
"""How long an engine may take for one sentence before the next one is asked."""

DEAF_MS = 200
"""After our last word: a telephone's loudspeaker may still say it to its microphone."""

_AGAIN = {
    "en": "Sorry, I did not understand. Do you take the call? Please say yes or no.",
    "de": "Entschuldigung, das habe ich nicht verstanden. Nehmen Sie das Gespräch an? Bitte sagen Sie ja oder nein.",
}


async def introduced(step: steps.Transfer, scene: Scene, party: Party) -> Outcome:
    """Tell the target who comes, and ask; anything but an acceptance, nothing, or hanging up declines."""
    asking = asyncio.create_task(_asked(step, scene, party), name=f"announcement to {party.name}")
    leaving = asyncio.create_task(party.left(), name=f"end of {party.name}")
    try:
        await asyncio.wait({asking, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        asking.cancel()
        await asyncio.wait({asking, leaving})
    try:
        outcome = Outcome.DECLINED if asking.cancelled() or party.gone is not None else asking.result()
    except ProviderError as problem:
        scene.failed("transfer", problem)
        outcome = Outcome.FAILED
    party.judge(outcome)
    return outcome


async def _asked(step: steps.Transfer, scene: Scene, party: Party) -> Outcome:
    """Raises ProviderError when nobody can speak, or nobody can write down what only the voice may say."""
    await _say(step, scene, party, step.announce)
    if step.accept_by == "digit":
        accepted: bool | None = await _key(step, party)
    else:
        accepted = await _answer(step, scene, party)
        if accepted is None:
            await _say(step, scene, party, _AGAIN.get(step.language, _AGAIN["en"]))
            accepted = await _answer(step, scene, party)
    return Outcome.ANSWERED if accepted else Outcome.DECLINED


async def _say(step: steps.Transfer, scene: Scene, party: Party, text: str) -> None:
    playout = party.leg.playout
    speaking = speak(scene, text, tts=step.tts, voice=step.voice, language=step.language, playout=playout)
    if step.accept_by == "voice":
        await speaking
    else:
        await until_digit(party.name, party.digits, playout, speaking)


async def _key(step: steps.Transfer, party: Party) -> bool:
    return await party.digits.collect(1, step.accept_s) == step.accept


async def _answer(step: steps.Transfer, scene: Scene, party: Party) -> bool | None:
    """By voice, or by what comes first of voice and key. None: something was said, and it was neither yes nor no."""
    speaking = asyncio.create_task(_voice(step, scene, party), name=f"answer of {party.name}")
    if step.accept_by == "voice":
        return await _seen_out(speaking, speaking)
    pressing = asyncio.create_task(party.digits.collect(1, step.accept_s), name=f"key of {party.name}")
    return await _seen_out(_first(step, scene, speaking, pressing), speaking, pressing)


async def _first(
    step: steps.Transfer, scene: Scene, speaking: asyncio.Task[bool | None], pressing: asyncio.Task[str]
) -> bool | None:
    await asyncio.wait({speaking, pressing}, return_when=asyncio.FIRST_COMPLETED)
    if pressing.done() and pressing.result():
        return pressing.result() == step.accept
    try:
        return await speaking
    except ProviderError as problem:  # a key still does
        scene.failed("transfer", problem)
        return await pressing == step.accept


async def _seen_out(answer: Awaitable[bool | None], *tasks: asyncio.Task[Any]) -> bool | None:
    """The answer; whatever comes of it, the tasks are over then."""
    try:
        return await answer
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # a key may have come just before an engine failed


async def _voice(step: steps.Transfer, scene: Scene, party: Party) -> bool | None:
    """What the target says within accept_s; nothing is a no. What has no words in it was not said."""
    call = scene.call
    engines, chain = call.services.engines.stt, scene.plan.transcribers()
    transcriber = Transcriber(engines, chain, step.language, TRANSCRIPT_S, call.emit)
    ear = _Ear()
    loop = asyncio.get_running_loop()
    ends_s = loop.time() + step.accept_s
    with party.wiring.listening(ear.hear):
        while True:
            try:
                async with asyncio.timeout_at(ends_s):
                    sentence = await ear.sentence()
            except TimeoutError:
                return False
            heard = await transcriber.transcribe(sentence)
            if heard.text:
                answer = consents(heard.text)
                call.log.info("the target answered", party=party.name, answer=_IN_THE_LOG[answer])
                return answer


_IN_THE_LOG = {True: "yes", False: "no", None: "unclear"}


class _Ear:
    """The target's sentences; of those that nobody waits for the last one is kept. Loop thread."""

    def __init__(self) -> None:
        self._sentences = Sentences()
        self._deaf_ms = DEAF_MS
        self._said: asyncio.Queue[Samples] = asyncio.Queue(1)

    def hear(self, frame: Frame) -> None:
        if self._deaf_ms > 0:
            self._deaf_ms -= FRAME_MS
            return
        sentence = self._sentences.hear(frame)
        if sentence is not None:
            if self._said.full():
                self._said.get_nowait()
            self._said.put_nowait(sentence)

    async def sentence(self) -> Samples:
        return await self._said.get()
