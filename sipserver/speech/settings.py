"""The `speech:` part of the settings: engines by the name under which dialplans use them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

WYOMING_URI = r"^(tcp://[^/:]+:\d+|tcp://\[[0-9a-fA-F:]+\]:\d+|unix:///.+)$"


class _Engine(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    timeout_s: float = Field(default=10, gt=0)
    queue: int = Field(default=32, ge=1)


class WhisperSettings(_Engine):
    """Whisper by CTranslate2. model: a catalogue name (`sipserver models list`), a folder, or a hub name."""

    vendor: Literal["whisper"] = "whisper"
    model: str = "tiny.en"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compute_type: str = "int8"
    workers: int = Field(default=2, ge=1, le=64)
    batch: int = Field(default=4, ge=1, le=32)


class WhisperCppSettings(_Engine):
    """Whisper by whisper.cpp (pywhispercpp) for ggml models. model: a file."""

    vendor: Literal["whisper_cpp"]
    model: str
    threads: int = Field(default=2, ge=1)


class OpenAiSttSettings(_Engine):
    """Any server with OpenAI's /audio/transcriptions. api_key_env: the variable that holds the key."""

    vendor: Literal["openai"]
    base_url: str = "https://api.openai.com/v1"
    model: str = "whisper-1"
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: int = Field(default=16, ge=1)


class PiperSettings(_Engine):
    """voices: catalogue names or paths of .onnx files; the first that speaks a language is its default.

    gain_db: Piper raises every clause to full scale; at -4 dB its active level is -22 dBov, which leaves telephones
    some headroom (ITU-T P.56 tells how it is measured).
    """

    vendor: Literal["piper"] = "piper"
    voices: tuple[str, ...] = ("en_US-joe-medium",)
    threads: int = Field(default=2, ge=1)
    gain_db: float = Field(default=-4, ge=-30, le=0)


class EspeakSettings(_Engine):
    """espeak-ng, which needs no model and speaks about a hundred languages."""

    vendor: Literal["espeak"] = "espeak"
    words_per_minute: int = Field(default=150, ge=80, le=450)
    processes: int = Field(default=4, ge=1)


class OpenAiTtsSettings(_Engine):
    """Any server with OpenAI's /audio/speech."""

    vendor: Literal["openai"]
    base_url: str = "https://api.openai.com/v1"
    model: str = "tts-1"
    voice: str = "alloy"
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: int = Field(default=16, ge=1)


class WyomingSttSettings(_Engine):
    """Any Wyoming server, e.g. wyoming-faster-whisper on a machine with a GPU. model: the one to ask for; empty: its
    own choice. concurrency: requests at a time from each process.
    """

    vendor: Literal["wyoming"]
    uri: str = Field(pattern=WYOMING_URI)
    model: str = ""
    concurrency: int = Field(default=16, ge=1)


class WyomingTtsSettings(_Engine):
    """Any Wyoming server, e.g. wyoming-piper. voice: the one to use where the dialplan names none."""

    vendor: Literal["wyoming"]
    uri: str = Field(pattern=WYOMING_URI)
    voice: str = ""
    concurrency: int = Field(default=16, ge=1)


SttSettings = Annotated[
    WhisperSettings | WhisperCppSettings | OpenAiSttSettings | WyomingSttSettings, Field(discriminator="vendor")
]
TtsSettings = Annotated[
    PiperSettings | EspeakSettings | OpenAiTtsSettings | WyomingTtsSettings, Field(discriminator="vendor")
]


HOSTED = (WhisperSettings, WhisperCppSettings, PiperSettings, EspeakSettings)
"""Engines that run on the machine itself: in a fleet its speech workers have them for all processes."""


class SpeechSettings(BaseModel):
    """models: where `sipserver models install` keeps what it installs from files, packages and hubs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: Path = Path("../var/models")
    stt: dict[str, SttSettings] = {"whisper": WhisperSettings()}
    tts: dict[str, TtsSettings] = {"piper": PiperSettings(), "espeak": EspeakSettings()}
