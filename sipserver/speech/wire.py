"""The Wyoming protocol as both sides of ours speak it: what is ours beyond the standard, and errors as events.

The standard: https://github.com/OHF-Voice/wyoming. Other servers and clients ignore what they do not know, so all of
this is additional:
- `transcribe` may carry `context: {speculative: true}`, `synthesize` `context: {language}`; `transcript` carries
  `context: {confidence, queued_ms, took_ms}`.
- `info` carries `engines`: the capabilities exactly as `contract.py` has them.
- `audio-start` with `shared: true` asks for a place in shared memory; `audio-segment` answers where it is. The stream's
  sound is then written there instead of sent, and its probabilities are read there. `voice-started`, `voice-stopped`
  and `audio-stop` are as ever.
- `load-engines` asks a worker to load what the settings name, `locate-model` where a language model listens.
Owns names and mappings. Refuses to know sockets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wyoming.error import Error
from wyoming.event import Event

from sipserver.errors import (
    ModelMissing,
    ProviderBusy,
    ProviderError,
    ProviderRejected,
    ProviderTimeout,
    SettingsError,
    SipServerError,
)
from sipserver.speech import languages
from sipserver.speech.contract import SttCapabilities, TtsCapabilities

SEGMENT, LOAD, LOADED, LOCATE, LOCATION = (
    "audio-segment",
    "load-engines",
    "engines-loaded",
    "locate-model",
    "model-location",
)

_BUSY, _TIMEOUT, _REJECTED, _FAILED, _MISSING, _SETTINGS = (
    "busy",
    "timeout",
    "rejected",
    "failed",
    "model-missing",
    "settings",
)
_CODES: tuple[tuple[type[SipServerError], str], ...] = (
    (ProviderBusy, _BUSY),
    (ProviderTimeout, _TIMEOUT),
    (ProviderRejected, _REJECTED),
)
_ERRORS: dict[str | None, type[ProviderError]] = {
    _BUSY: ProviderBusy,
    _TIMEOUT: ProviderTimeout,
    _REJECTED: ProviderRejected,
}


@dataclass(frozen=True, slots=True)
class Wish:
    """Engines by the names of the settings, that a worker shall have."""

    stt: tuple[str, ...] = ()
    tts: tuple[str, ...] = ()
    llm: tuple[str, ...] = ()
    vad: bool = False

    def event(self) -> Event:
        return Event(LOAD, {"stt": self.stt, "tts": self.tts, "llm": self.llm, "vad": self.vad})

    @classmethod
    def from_event(cls, event: Event) -> Wish:
        """Raises KeyError for what is none."""
        stt, tts, llm = (tuple(str(name) for name in event.data[part]) for part in ("stt", "tts", "llm"))
        return cls(stt, tts, llm, bool(event.data["vad"]))


def error_event(problem: Exception) -> Event:
    """An error as the protocol tells it, with a code that `raised` understands."""
    if isinstance(problem, ModelMissing):
        event = Error(problem.model, _MISSING).event()
        event.data["command"] = problem.command
        return event
    if isinstance(problem, SettingsError):
        return Error(str(problem), _SETTINGS).event()
    code = next((code for kind, code in _CODES if isinstance(problem, kind)), _FAILED)
    reason = problem.reason if isinstance(problem, ProviderError) else f"{type(problem).__name__}: {problem}"
    return Error(reason, code).event()


def raised(event: Event, engine: str) -> SipServerError:
    """The exception that an error event stands for. Codes of other servers become ProviderError."""
    error = Error.from_event(event)
    if error.code == _MISSING:
        return ModelMissing(error.text, str(event.data.get("command", "")))
    if error.code == _SETTINGS:
        return SettingsError(error.text)
    return _ERRORS.get(error.code, ProviderError)(engine, error.text[:300])


def described(stt: dict[str, SttCapabilities], tts: dict[str, TtsCapabilities]) -> dict[str, Any]:
    """Capabilities as JSON, for `info`."""
    return {
        "stt": {name: {**_common(it), "detects": it.detects_language} for name, it in stt.items()},
        "tts": {name: {**_common(it), "voices": it.voices} for name, it in tts.items()},
    }


def stt_capabilities(info: Event, engine: str) -> SttCapabilities:
    """From our own description, or else from the models that the standard lists (all of them if none is called so)."""
    own = _own(info, "stt", engine)
    if own is not None:
        return SttCapabilities(_set(own["languages"]), bool(own["detects"]), local=True, **_bill(own))
    models = _installed([model for program in info.data.get("asr", ()) for model in program.get("models", ())])
    named = [model for model in models if model.get("name") == engine] or models
    spoken = {languages.primary(tag) for model in named for tag in model.get("languages", ())}
    return SttCapabilities(frozenset(spoken) or None, len(spoken) != 1, local=False)


def tts_capabilities(info: Event, engine: str) -> TtsCapabilities:
    """As stt_capabilities."""
    own = _own(info, "tts", engine)
    if own is not None:
        voices = None if own["voices"] is None else tuple(own["voices"])
        return TtsCapabilities(_set(own["languages"]), voices, streaming=True, local=True, **_bill(own))
    listed = _installed([voice for program in info.data.get("tts", ()) for voice in program.get("voices", ())])
    spoken = {languages.primary(tag) for voice in listed for tag in voice.get("languages", ())}
    names = tuple(str(voice["name"]) for voice in listed) or None
    return TtsCapabilities(frozenset(spoken) or None, names, streaming=True, local=False)


def _common(it: SttCapabilities | TtsCapabilities) -> dict[str, Any]:
    return {"languages": _listed(it.languages), "vendor": it.vendor, "model": it.model}


def _bill(own: Mapping[str, Any]) -> dict[str, str]:
    """A worker of an older version does not say these."""
    return {"vendor": str(own.get("vendor", "")), "model": str(own.get("model", ""))}


def _own(info: Event, part: str, engine: str) -> dict[str, Any] | None:
    found: dict[str, Any] | None = info.data.get("engines", {}).get(part, {}).get(engine)
    return found


def _installed(artifacts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Servers also list what they would have to download first."""
    return [artifact for artifact in artifacts if artifact.get("installed")] or artifacts


def _listed(names: frozenset[str] | None) -> list[str] | None:
    return None if names is None else sorted(names)


def _set(names: list[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)
