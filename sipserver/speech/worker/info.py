"""How the worker describes itself: the standard's programs, models and voices, and our capabilities beside them."""

from __future__ import annotations

from collections.abc import Iterable

from wyoming.event import Event
from wyoming.info import AsrModel, AsrProgram, Attribution, Info, TtsProgram, TtsVoice

from sipserver import __version__
from sipserver.speech import wire
from sipserver.speech.worker.host import Host

_OWN = Attribution("sipserver", "")


def info(host: Host) -> Event:
    """The answer to `describe`: every loaded engine is a program of its own."""
    stt = {name: engine.capabilities for name, engine in host.stt.items()}
    tts = {name: engine.capabilities for name, engine in host.tts.items()}
    asr = []
    for name, hears in stt.items():
        model = AsrModel(name, _OWN, True, None, __version__, _tags(hears.languages))
        asr.append(AsrProgram(name, _OWN, True, None, __version__, [model]))
    voices = []
    for name, speaks in tts.items():
        own = [TtsVoice(voice, _OWN, True, None, None, _tags(speaks.languages)) for voice in speaks.voices or (name,)]
        voices.append(TtsProgram(name, _OWN, True, None, __version__, own))
    event = Info(asr=asr, tts=voices).event()
    event.data["engines"] = wire.described(stt, tts)
    return event


def _tags(languages: Iterable[str] | None) -> list[str]:
    return sorted(languages or ())
