"""conference: the caller is let into a room, and stays until they go, are removed, or the room is over."""

from __future__ import annotations

import asyncio
import re

import numpy as np

from sipserver.agent.clauses import sentences
from sipserver.audio import tones
from sipserver.audio.frame import Samples
from sipserver.calls import conference as rooms
from sipserver.calls.conference import Member
from sipserver.calls.scene import Left, Scene
from sipserver.calls.steps import placing
from sipserver.dialplan import steps, template
from sipserver.dialplan.steps.gatherings import is_name
from sipserver.errors import CallerError, ProviderError

PIN_TRIES = 3
PIN_S = 10.0
"""For the first digit of the PIN; each further one has half of it."""

_PIN = re.compile(r"[0-9]{1,16}")


class _Unusable(CallerError):
    """What variables made of an option makes no sense."""


async def conference(step: steps.Conference, scene: Scene) -> Left:
    """The tone that asks for the PIN, and those that tell of members who come and go, are made here."""
    call = scene.call
    try:
        name, pin = _filled_in(step, scene)
    except _Unusable as problem:
        return scene.failed("conference", problem)
    if pin and not await _knows(pin, scene):
        return Left("wrong_pin")
    try:
        async with call.services.rooms.joined(
            call,
            name,
            most=step.max,
            moderator=step.moderator,
            moderated=_moderated(name, scene),
            music=await placing.sound(step, scene),
        ) as member:
            reason = await _stay(step, scene, member)
    except rooms.RoomFull:
        return Left("full")
    except rooms.RoomElsewhere as problem:
        return scene.failed("conference", problem)
    return Left("kicked" if reason == "kicked" else "left")


def _filled_in(step: steps.Conference, scene: Scene) -> tuple[str, str]:
    """Room and PIN. A PIN of which variables left nothing must not open the room to everybody."""
    name, pin = scene.text(step.room), scene.text(step.pin)
    if not is_name(name):
        raise _Unusable("the variables make no name of a room")
    if step.pin and _PIN.fullmatch(pin) is None:
        raise _Unusable("the variables make no PIN: 1 to 16 digits")
    return name, pin


def _moderated(name: str, scene: Scene) -> bool:
    """Whether some step of the plan lets moderators into this room, as this call's variables have it."""
    return any(
        isinstance(step, steps.Conference)
        and step.moderator
        and template.render(step.room, scene.variables).text == name
        for _flow, _index, step in scene.plan.steps()
    )


async def _knows(pin: str, scene: Scene) -> bool:
    """Digits typed ahead are the first try. `#` ends a PIN early."""
    call = scene.call
    for _ in range(PIN_TRIES):
        if not call.digits:
            _play(scene, tones.beep(150))
        typed = await call.digits.collect(len(pin), PIN_S, terminator="#", between_s=PIN_S / 2)
        call.digits.clear()
        if typed == pin:
            return True
        _play(scene, rooms.sound("left"))
    return False


async def _stay(step: steps.Conference, scene: Scene, member: Member) -> str:
    """Returns why the member had to leave."""
    call, room = scene.call, member.room
    begins = step.record and not call.tape.running
    if begins:
        await call.tape.start()
    telling = asyncio.create_task(_announce(step, scene, member), name=f"announcement of {call.id}")
    try:
        return await member.over()
    finally:
        telling.cancel()
        room.tell(rooms.sound("left"), but=member)
        room.mix.flush()
        await asyncio.wait({telling})
        if begins:
            await call.tape.stop()


async def _announce(step: steps.Conference, scene: Scene, member: Member) -> None:
    """Tell the room who comes; the member hears the tone as well, and so knows that they are in."""
    joined = rooms.sound("joined")
    member.play(joined)
    samples = joined
    if step.announce:
        try:
            samples = await _spoken(step, scene)
        except ProviderError as problem:
            scene.failed("conference", problem)
    member.room.tell(samples, but=member)


async def _spoken(step: steps.Conference, scene: Scene) -> Samples:
    """The announcement as sound: it is for several playouts. Raises ProviderError."""
    names = tuple(scene.call.services.engines.tts)
    chain = (step.tts, *(name for name in names if name != step.tts)) if step.tts else names
    parts = [np.zeros(0, np.int16)]
    for sentence in sentences(scene.text(step.announce)):
        chunks = scene.voice.synthesise(
            sentence,
            chain=chain,
            voice=step.voice,
            language=step.language,
            cacheable=not template.names(step.announce),
        )
        parts += [samples async for samples in chunks]
    return np.concatenate(parts)


def _play(scene: Scene, samples: Samples) -> None:
    clip = scene.call.leg.playout.begin("room")
    clip.write_now(samples)
    clip.finish()
