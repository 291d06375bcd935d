"""stream: somebody's bot hears the caller, and speaks unless it only listens."""

from __future__ import annotations

import asyncio

from sipserver.calls.bots import Bot, BotOrder
from sipserver.calls.call import Call
from sipserver.calls.scene import Left, Scene
from sipserver.dialplan import steps
from sipserver.errors import ProviderError
from sipserver.events import Fault


async def stream(step: steps.Stream, scene: Scene) -> Left:
    """Digits are the bot's while it speaks: none is left to answer a later menu."""
    call, bots = scene.call, scene.call.services.bots
    if bots is None:
        return scene.failed("stream", ProviderError("bot", "nobody connects to bots here"))
    try:
        bot = await bots.open(_order(step, scene), call.leg.playout, call.emit)
    except ProviderError as problem:
        return scene.failed("stream", problem)
    if not step.both:
        call.beside(_overheard(call, bot), f"bot that listens to {call.id}")
        return Left()
    async with bot:
        with call.wiring.listening(bot.hear), call.digits.handed_to(bot.digit):
            try:
                async with asyncio.timeout(step.max_s):
                    over = await bot.run()
            except TimeoutError:
                return Left("max_duration")
    call.digits.clear()
    call.log.info("bot left", outcome=over.outcome, cause=over.cause)
    if over.outcome == "failed":
        call.emit(Fault(where="stream", error=over.cause))
    return Left(over.outcome)


async def _overheard(call: Call, bot: Bot) -> None:
    """Until the bot leaves or the call ends, whatever the dialplan does meanwhile."""
    async with bot:
        with call.wiring.overheard(bot.overhear):
            over = await bot.run()
    if over.outcome == "failed":
        call.emit(Fault(where="stream", error=over.cause))


def _order(step: steps.Stream, scene: Scene) -> BotOrder:
    call = scene.call
    return BotOrder(
        url=scene.text(step.url),
        protocol=step.protocol,
        both=step.both,
        call_id=call.id,
        tenant=call.tenant,
        from_user=call.leg.offer.from_user,
        to_user=call.leg.offer.to_user,
        tracks=step.tracks,
        rate_hz=step.rate_hz,
        parameters={name: scene.text(value) for name, value in step.parameters.items()},
        headers={name: scene.text(value) for name, value in step.headers.items()},
        headers_env=step.headers_env,
        sign_env=step.sign_env,
        connect_s=step.connect_s,
        silent_s=step.silent_s,
    )
