"""The target of a warm transfer is told who comes, and accepts or declines.

Owns the announcement and the target's answer to it. Refuses to call the target and to connect it.
"""

from __future__ import annotations

import asyncio

from sipserver.calls.outbound import Outcome
from sipserver.calls.party import Party
from sipserver.calls.scene import Scene
from sipserver.calls.steps.sound import speak, until_digit
from sipserver.dialplan import steps
from sipserver.errors import ProviderError


async def introduced(step: steps.Transfer, scene: Scene, party: Party) -> Outcome:
    """Tell the target who comes; the key accepts, anything else, nothing, or hanging up declines."""
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
    playout = party.leg.playout
    speaking = speak(scene, step.announce, tts=step.tts, voice=step.voice, language=step.language, playout=playout)
    await until_digit(party.name, party.digits, playout, speaking)
    pressed = await party.digits.collect(1, step.accept_s)
    return Outcome.ANSWERED if pressed == step.accept else Outcome.DECLINED
