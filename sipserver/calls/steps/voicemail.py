"""voicemail: a greeting, a beep, and the caller's message in a file of its own.

The file lies in the folder of recordings, at `voicemail/<tenant>/<box>/<time>_<call id>.wav`: one channel, the caller
(`.wav.enc` where recordings are encrypted).
"""

from __future__ import annotations

import asyncio
import functools
import re
from datetime import datetime
from pathlib import Path

from sipserver.audio import tones
from sipserver.audio.frame import RATE_HZ, Frame
from sipserver.audio.quiet import Quiet, Why
from sipserver.calls.recording import Finished, Recording
from sipserver.calls.scene import Left, Scene
from sipserver.calls.scribe import Message
from sipserver.calls.steps.sound import speak, until_digit
from sipserver.dialplan import steps
from sipserver.dialplan.steps.gatherings import is_name
from sipserver.errors import CallerError, ProviderError
from sipserver.events import Fault, VoicemailLeft

BEEP_MS = 300
LEAST_VOICE_MS = 300
"""With less sound than this nothing was said: a key, a click, the line."""
BEFORE_TONE_MS = 200
"""What stays of the pause before the tones of a caller who has hung up."""

_NO_NAME = re.compile(r"[^A-Za-z0-9_-]")


async def voicemail(step: steps.Voicemail, scene: Scene) -> Left:
    """Any key ends the greeting, another one the message. A greeting that cannot be said leaves the beep."""
    call, box = scene.call, scene.text(step.box)
    if not is_name(box):
        return scene.failed("voicemail", CallerError("the variables make no name of a box"))
    if reason := await call.tape.refused():
        call.tape.refuse(reason)
        return Left("failed")
    await _greet(step, scene)
    call.digits.clear()
    beep = call.leg.playout.begin("beep")
    beep.write_now(tones.beep(BEEP_MS))
    beep.finish()
    await beep.heard()
    recorder = call.services.recorder
    path = recorder.place(file_name(call.tenant, box, call.services.now(), call.id))
    taking = _Taking(step.silence_s)
    recording = recorder.start(path, tenant=call.tenant, stereo=False, on_failure=taking.end)
    finished = Finished(0, 0)
    try:
        with call.wiring.listening(lambda frame: taking.hear(recording, frame)), call.digits.handed_to(taking.key):
            await taking.over(step.max_s)
    finally:  # also when the caller hangs up: the message is theirs to leave
        finished = await recording.stop(taking.keep)
        if not finished.failure and taking.voiced_ms >= LEAST_VOICE_MS:
            _keep(step, scene, box, path, finished, taking.ended_by)
        elif not finished.failure:
            await asyncio.to_thread(path.unlink, missing_ok=True)
        else:
            call.emit(Fault(where="voicemail", error=f"the message was not kept whole: {finished.failure}"))
    if finished.failure:
        return Left("failed")
    return Left("recorded" if taking.voiced_ms >= LEAST_VOICE_MS else "empty")


def file_name(tenant: str, box: str, at: datetime, call_id: str) -> Path:
    """Below the folder of recordings. box: a name (`is_name`)."""
    folder = Path("voicemail") / (_NO_NAME.sub("_", tenant) or "_") / box
    return folder / f"{at:%Y%m%d-%H%M%S}-{at.microsecond // 1000:03}_{call_id}.wav"


async def _greet(step: steps.Voicemail, scene: Scene) -> None:
    if not step.greeting:
        return
    call = scene.call
    speaking = speak(scene, step.greeting, tts=step.tts, voice=step.voice, language=step.language)
    try:
        await until_digit(call.id, call.digits, call.leg.playout, speaking)
    except ProviderError as problem:
        scene.failed("voicemail", problem)


def _keep(step: steps.Voicemail, scene: Scene, box: str, path: Path, finished: Finished, ended_by: str) -> None:
    call = scene.call
    duration_ms = finished.samples * 1000 // RATE_HZ
    call.emit(VoicemailLeft(box=box, path=str(path), duration_ms=duration_ms, ended_by=ended_by))
    if step.transcript:
        opens = functools.partial(call.services.recorder.read, path, call.tenant)
        message = Message(box, path, opens, scene.plan.transcribers(), step.language, call.emit)
        call.services.scribe.write(message, call.services.engines)


class _Taking:
    """One message while it is spoken. Loop thread."""

    def __init__(self, silence_s: float) -> None:
        self._quiet = Quiet(round(silence_s * 1000))
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @property
    def voiced_ms(self) -> int:
        return self._quiet.voiced_ms

    @property
    def keep(self) -> int | None:
        """Samples of the file that are the message; None: all. The network's tones after it are not."""
        if self.ended_by != "tone":
            return None
        return (self._quiet.speech_ms + BEFORE_TONE_MS) * RATE_HZ // 1000

    @property
    def ended_by(self) -> str:
        return self._over.result() if self._over.done() else "hangup"

    async def over(self, longest_s: float) -> None:
        try:
            async with asyncio.timeout(longest_s):
                await asyncio.shield(self._over)
        except TimeoutError:
            self.end("max")

    def end(self, why: str) -> None:
        """The first reason stays. Also what the recorder calls when the disk refuses."""
        if not self._over.done():
            self._over.set_result(why)

    def key(self, _digit: str) -> None:
        self.end("key")

    def hear(self, recording: Recording, frame: Frame) -> None:
        recording.hear(frame, Frame.silence(frame.at_ns))
        ended = self._quiet.hear(frame)
        if ended is not None:
            self.end("silence" if ended.why is Why.SILENCE else "tone")
