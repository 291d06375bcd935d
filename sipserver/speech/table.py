"""Which loader belongs to which vendor. Nothing registers itself: to add a vendor, add its settings and a line here."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from sipserver.speech.contract import Stt, Tts, Vad
from sipserver.speech.settings import (
    EspeakSettings,
    OpenAiSttSettings,
    OpenAiTtsSettings,
    PiperSettings,
    SttSettings,
    TtsSettings,
    WhisperCppSettings,
    WhisperSettings,
    WyomingSttSettings,
    WyomingTtsSettings,
)
from sipserver.speech.vendors import (
    espeak,
    openai_stt,
    openai_tts,
    piper,
    silero,
    whisper,
    whisper_cpp,
    wyoming_stt,
    wyoming_tts,
)


class Measured(Protocol):
    """What every engine here has beside its contract."""

    @property
    def depth(self) -> int:
        """How much work waits, for the metrics."""
        ...


class MeasuredVad(Vad, Measured, Protocol):
    pass


class MeasuredStt(Stt, Measured, Protocol):
    pass


class MeasuredTts(Tts, Measured, Protocol):
    pass


async def load_vad(folder: Path) -> MeasuredVad:
    """There is one detector. Raises ModelMissing."""
    return await silero.load(folder)


async def load_stt(name: str, settings: SttSettings, folder: Path) -> MeasuredStt:
    """Load the engine that the settings describe. Blocks no loop. Raises ConfigError, ModelMissing among them."""
    match settings:
        case WhisperSettings():
            return await whisper.load(name, settings, folder)
        case WhisperCppSettings():
            return await whisper_cpp.load(name, settings, folder)
        case OpenAiSttSettings():
            return await openai_stt.load(name, settings)
        case WyomingSttSettings():
            return await wyoming_stt.load(name, settings)


async def load_tts(name: str, settings: TtsSettings, folder: Path) -> MeasuredTts:
    """As load_stt."""
    match settings:
        case PiperSettings():
            return await piper.load(name, settings, folder)
        case EspeakSettings():
            return await espeak.load(name, settings)
        case OpenAiTtsSettings():
            return await openai_tts.load(name, settings)
        case WyomingTtsSettings():
            return await wyoming_tts.load(name, settings)
