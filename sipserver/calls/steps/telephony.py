"""answer, early, wait, hold, hangup: what the signalling of the call does."""

from __future__ import annotations

import asyncio

from sipserver.audio.hold_music import gentle
from sipserver.calls import music
from sipserver.calls.scene import Left, Scene
from sipserver.calls.states import EndReason
from sipserver.dialplan import steps

_BUSY_CODES = frozenset({486, 600})


async def answer(_step: steps.Answer, scene: Scene) -> Left:
    await scene.call.answer()
    return Left()


async def early(_step: steps.Early, scene: Scene) -> Left:
    await scene.call.early()
    return Left()


async def wait(step: steps.Wait, scene: Scene) -> Left:
    """An unanswered caller hears ringing, an answered one silence."""
    await scene.call.ring()
    await asyncio.sleep(step.seconds)
    return Left()


async def hold(_step: steps.Hold, scene: Scene) -> Left:
    async with music.playing(scene.call.leg.playout, gentle(), f"hold: {scene.call.id}"):
        await scene.call.wiring.aside.resumed()
    return Left()


async def hangup(step: steps.Hangup, scene: Scene) -> Left:
    if scene.call.answered:
        scene.call.end(EndReason.DIALPLAN_HANGUP, step.reason)
    else:
        reason = EndReason.BUSY if step.code in _BUSY_CODES else EndReason.REJECTED
        scene.call.end(reason, step.reason, code=step.code, phrase=step.reason)
    return Left()
