"""The speech engines of a process: loads those that the dialplans name, and closes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from sipserver.errors import SettingsError
from sipserver.speech import table
from sipserver.speech.settings import SpeechSettings
from sipserver.speech.table import MeasuredStt, MeasuredTts, MeasuredVad

Value = TypeVar("Value")


@dataclass(frozen=True)
class Speech:
    """Loop thread. stt and tts: by the names that dialplans use. vad: None when it was not asked for."""

    vad: MeasuredVad | None
    stt: Mapping[str, MeasuredStt]
    tts: Mapping[str, MeasuredTts]

    def depths(self) -> dict[tuple[str, str], int]:
        """(part, engine) -> how much work waits, for the metrics. part: vad, stt or tts."""
        depths = {("vad", self.vad.name): self.vad.depth} if self.vad is not None else {}
        depths |= {("stt", name): engine.depth for name, engine in self.stt.items()}
        return depths | {("tts", name): engine.depth for name, engine in self.tts.items()}

    async def close(self) -> None:
        """Close all engines, one after the other, whatever one of them raises; then raise the first error."""
        problems = []
        closers = [engine.close for engine in self.tts.values()] + [engine.close for engine in self.stt.values()]
        closers += [self.vad.close] if self.vad is not None else []
        for close in closers:
            try:
                await close()
            except Exception as problem:  # the others must be closed too
                problems.append(problem)
        if problems:
            raise problems[0]


async def load(
    settings: SpeechSettings, *, stt: Iterable[str] = (), tts: Iterable[str] = (), vad: bool = True
) -> Speech:
    """Load the named engines, each once, and the detector if it is wanted (it brings 40 MB with it).

    Blocks no loop; takes seconds. What was loaded before an error is closed again. Raises ConfigError: SettingsError
    for a name that the settings do not have, ModelMissing with the command to type.
    """
    wanted_stt = {name: _named(settings.stt, name, "speech.stt") for name in dict.fromkeys(stt)}
    wanted_tts = {name: _named(settings.tts, name, "speech.tts") for name in dict.fromkeys(tts)}
    loaded_stt: dict[str, MeasuredStt] = {}
    loaded_tts: dict[str, MeasuredTts] = {}
    speech = Speech(await table.load_vad(settings.models) if vad else None, loaded_stt, loaded_tts)
    try:
        for name, stt_settings in wanted_stt.items():
            loaded_stt[name] = await table.load_stt(name, stt_settings, settings.models)
        for name, tts_settings in wanted_tts.items():
            loaded_tts[name] = await table.load_tts(name, tts_settings, settings.models)
    except BaseException:
        await speech.close()
        raise
    return speech


def _named(engines: Mapping[str, Value], name: str, key: str) -> Value:
    if name not in engines:
        raise SettingsError(f"there is no engine {name}; there are {', '.join(engines) or 'none'}", key=key)
    return engines[name]
