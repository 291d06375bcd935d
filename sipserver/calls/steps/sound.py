"""say, play, echo: what the caller hears without being asked anything."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from sipserver.audio import sound_file
from sipserver.audio.playout import Playout
from sipserver.calls.call import Call
from sipserver.calls.digits import DigitBuffer
from sipserver.calls.scene import Left, Scene
from sipserver.dialplan import steps
from sipserver.errors import ConfigError, ProviderError


async def say(step: steps.Say, scene: Scene) -> Left:
    speaking = speak(scene, step.text, tts=step.tts, voice=step.voice, language=step.language)
    try:
        await until_digit(
            scene.call.id, scene.call.digits, scene.call.leg.playout, speaking
        ) if step.interruptible else await speaking
    except ProviderError as problem:
        return scene.failed("say", problem)
    return Left()


async def play(step: steps.Play, scene: Scene) -> Left:
    playing = play_file(scene.call, scene.plan.sound(step.file))
    try:
        await until_digit(
            scene.call.id, scene.call.digits, scene.call.leg.playout, playing
        ) if step.interruptible else await playing
    except ConfigError as problem:
        return scene.failed("play", problem)
    return Left()


async def echo(step: steps.Echo, scene: Scene) -> Left:
    """The leg's own media send the sound back: it does not pass through here."""
    leg = scene.call.leg
    leg.loop_back(True)
    try:
        await asyncio.sleep(step.max_s)
    finally:
        leg.loop_back(False)
    return Left()


async def prompt(scene: Scene, step: steps.Collect) -> None:
    """The question of a collect step; the first digit ends it. A question that cannot be put is in the record."""
    try:
        if step.say:
            speaking = speak(scene, step.say, tts=step.tts, voice=step.voice, language=step.language)
            await _until_digit(scene.call, speaking)
        elif step.play:
            await until_digit(
                scene.call.id,
                scene.call.digits,
                scene.call.leg.playout,
                play_file(scene.call, scene.plan.sound(step.play)),
            )
    except (ProviderError, ConfigError) as problem:
        scene.failed("collect", problem)


async def speak(
    scene: Scene, source: str, *, tts: str, voice: str, language: str, playout: Playout | None = None
) -> None:
    """Say a text to its end, by the engine named or, if it fails, by any other. Raises ProviderError.

    playout: of somebody else than the caller. A text of the dialplan without variables is the same for every call and
    therefore worth keeping as sound; one that comes from outside is about this call, and the sounds are all tenants'.
    """
    text = scene.text(source)
    names = tuple(scene.call.services.engines.tts)
    chain = (tts, *(name for name in names if name != tts)) if tts else names
    await scene.voice.say(
        text,
        scene.call.leg.playout if playout is None else playout,
        chain=chain,
        voice=voice,
        language=language,
        cacheable=source in scene.plan.fixed,
    )


async def play_file(call: Call, path: Path) -> None:
    """Play a file to its end. Raises ConfigError when it cannot be read."""
    samples = await asyncio.to_thread(sound_file.read, path)
    clip = call.leg.playout.begin(path.name)
    await clip.write(samples)
    clip.finish()
    await clip.heard()


async def _until_digit(call: Call, playing: Coroutine[Any, Any, None]) -> None:
    await until_digit(call.id, call.digits, call.leg.playout, playing)


async def until_digit(name: str, digits: DigitBuffer, playout: Playout, playing: Coroutine[Any, Any, None]) -> None:
    """Let something play until it is over or a digit is pressed, which stays in the buffer. Raises what it raises."""
    sounding = asyncio.create_task(playing, name=f"prompt of {name}")
    pressing = digits.pressed()
    try:
        await asyncio.wait({sounding, pressing}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        pressing.cancel()
        if sounding.cancel():
            playout.flush()
            await asyncio.wait({sounding})
    if not sounding.cancelled():
        sounding.result()
