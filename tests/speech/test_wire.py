"""Errors and capabilities on their way through the protocol."""

from __future__ import annotations

from typing import Any

import pytest
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
from sipserver.speech import wire
from sipserver.speech.contract import SttCapabilities, TtsCapabilities
from sipserver.speech.wire import Wish


@pytest.mark.parametrize("kind", [ProviderBusy, ProviderTimeout, ProviderRejected, ProviderError])
def test_an_engines_error_arrives_as_it_was_raised(kind: type[ProviderError]) -> None:
    arrived = wire.raised(wire.error_event(kind("whisper", "no")), "here")
    assert type(arrived) is kind
    assert str(arrived) == "here: no"


def test_errors_of_files_arrive_with_what_the_operator_needs() -> None:
    missing = wire.raised(wire.error_event(ModelMissing("tiny.en", "sipserver models install tiny.en")), "x")
    assert isinstance(missing, ModelMissing)
    assert (missing.model, missing.command) == ("tiny.en", "sipserver models install tiny.en")
    assert isinstance(wire.raised(wire.error_event(SettingsError("no", key="speech.stt.x")), "x"), SettingsError)


@pytest.mark.parametrize("problem", [ValueError("odd"), SipServerError("odd")])
def test_any_other_error_is_a_failure_of_the_engine(problem: Exception) -> None:
    arrived = wire.raised(wire.error_event(problem), "x")
    assert type(arrived) is ProviderError


def test_errors_of_other_servers_are_failures_too() -> None:
    assert type(wire.raised(Error("odd", "their-own-code").event(), "x")) is ProviderError
    assert type(wire.raised(Error("odd").event(), "x")) is ProviderError


def test_wishes_travel() -> None:
    wish = Wish(("whisper",), ("piper", "espeak"), ("local",), vad=True)
    assert Wish.from_event(wish.event()) == wish


def test_our_own_capabilities_arrive_exactly() -> None:
    stt = {
        "one": SttCapabilities(frozenset({"en"}), False, True, "whisper", "tiny.en"),
        "all": SttCapabilities(None, True, True),
    }
    tts = {
        "piper": TtsCapabilities(frozenset({"en", "de"}), ("joe", "thorsten"), True, True),
        "espeak": TtsCapabilities(frozenset({"fr"}), None, True, True),
    }
    info = Event("info", {"engines": wire.described(stt, tts)})
    assert {name: wire.stt_capabilities(info, name) for name in stt} == stt
    assert {name: wire.tts_capabilities(info, name) for name in tts} == tts


def test_capabilities_of_other_servers_come_from_the_standard() -> None:
    models: list[dict[str, Any]] = [
        {"name": "tiny", "languages": ["en"]},
        {"name": "large", "languages": ["en", "de_AT", "fr"]},
    ]
    voices: list[dict[str, Any]] = [{"name": "a", "languages": ["en_US"]}, {"name": "b", "languages": ["de"]}]
    info = Event("info", {"asr": [{"models": models}], "tts": [{"voices": voices}]})
    assert wire.stt_capabilities(info, "tiny") == SttCapabilities(frozenset({"en"}), False, False)
    assert wire.stt_capabilities(info, "") == SttCapabilities(frozenset({"en", "de", "fr"}), True, False)
    assert wire.tts_capabilities(info, "") == TtsCapabilities(frozenset({"en", "de"}), ("a", "b"), True, False)
    models[0]["installed"] = voices[1]["installed"] = True
    assert wire.stt_capabilities(info, "").languages == {"en"}
    assert wire.tts_capabilities(info, "").voices == ("b",)
    nothing = Event("info", {})
    assert wire.stt_capabilities(nothing, "").languages is None
    assert wire.tts_capabilities(nothing, "").voices is None
