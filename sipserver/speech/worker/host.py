"""What the server needs from the process that has the engines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from sipserver.audio.frame import Samples
from sipserver.speech.contract import Stt, Tts
from sipserver.speech.wire import Wish
from sipserver.speech.worker.judge import Judge


class Host(Protocol):
    """Loop thread. stt, tts, judge: what is loaded; they may grow."""

    @property
    def stt(self) -> Mapping[str, Stt]: ...
    @property
    def tts(self) -> Mapping[str, Tts]: ...
    @property
    def judge(self) -> Judge | None: ...

    async def bring(self, wish: Wish) -> None:
        """Load what is not there yet. Raises ConfigError, ProviderError."""
        ...

    def model(self, name: str) -> tuple[str, str] | None:
        """(address, key) of a language model's server, None while it does not listen."""
        ...

    def kept(self, engine: str, voice: str, language: str, text: str) -> Samples | None:
        """The sound of a clause that was spoken before."""
        ...

    def keep(self, engine: str, voice: str, language: str, text: str, samples: Samples) -> None:
        """Remember how a clause sounds."""
        ...
