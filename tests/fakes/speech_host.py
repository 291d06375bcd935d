"""What a speech worker serves, without models: loudness for speech, texts and tones from scripts."""

from __future__ import annotations

from typing import Any

import numpy as np

from sipserver.audio.frame import Samples
from sipserver.errors import ConfigError
from sipserver.speech.contract import Stt, Tts
from sipserver.speech.wire import Wish
from sipserver.speech.worker.judge import Judge
from tests.fakes.engines import FakeStt, FakeTts


class LoudSession:
    """Stands in for Silero's session: 0.95 for a chunk with anything loud behind its first 2 ms, 0.02 for others."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.failures = 0

    def run(self, _names: None, inputs: dict[str, Any]) -> tuple[Any, Any]:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("no")
        sound, state = inputs["input"], inputs["state"]
        self.batches.append(len(sound))
        heard = np.abs(sound[:, 64:]).max(axis=1, keepdims=True) > 0.1
        return np.where(heard, np.float32(0.95), np.float32(0.02)), state + 1


class FakeHost:
    """Satisfies `speech.worker.host.Host`. wishes: what clients wanted loaded. refuses: raised instead of loading."""

    def __init__(self, stt: Stt | None = None, tts: Tts | None = None, *, slots: int = 64) -> None:
        self.session = LoudSession()
        self.judge: Judge | None = Judge(self.session, slots)
        self._judge = self.judge
        self.stt: dict[str, Stt] = {"whisper": stt or FakeStt("hello there", name="whisper", delay_s=0)}
        self.tts: dict[str, Tts] = {"piper": tts or FakeTts(name="piper", delay_s=0)}
        self.models: dict[str, tuple[str, str]] = {}
        self.wishes: list[Wish] = []
        self.refuses: ConfigError | None = None
        self.sounds: dict[tuple[str, str, str, str], Samples] = {}

    async def bring(self, wish: Wish) -> None:
        self.wishes.append(wish)
        if self.refuses is not None:
            raise self.refuses

    def model(self, name: str) -> tuple[str, str] | None:
        return self.models.get(name)

    def kept(self, engine: str, voice: str, language: str, text: str) -> Samples | None:
        return self.sounds.get((engine, voice, language, text))

    def keep(self, engine: str, voice: str, language: str, text: str, samples: Samples) -> None:
        self.sounds[engine, voice, language, text] = samples

    async def close(self) -> None:
        assert self._judge is not None
        await self._judge.close()
