"""Only what is asked for is loaded, only then is anything heavy imported, and everything is closed again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sipserver.errors import ModelMissing, ProviderRejected, SettingsError
from sipserver.speech import service, table
from sipserver.speech.settings import (
    EspeakSettings,
    OpenAiSttSettings,
    OpenAiTtsSettings,
    PiperSettings,
    SpeechSettings,
    WhisperCppSettings,
    WhisperSettings,
)
from sipserver.speech.vendors.openai_stt import OpenAiStt
from sipserver.speech.vendors.openai_tts import OpenAiTts

HEAVY = ("onnxruntime", "ctranslate2", "tokenizers", "piper", "pywhispercpp", "openai", "av", "huggingface_hub")


class FakeVad:
    """A detector that only notes that it was closed. fail: closing raises."""

    name, depth = "vad", 2

    def __init__(self, fail: bool = False) -> None:
        self.closed, self._fail = False, fail

    async def close(self) -> None:
        self.closed = True
        if self._fail:
            raise ProviderRejected("vad", "no")


@pytest.fixture
def vad(monkeypatch: pytest.MonkeyPatch) -> FakeVad:
    vad = FakeVad()

    async def load_vad(_folder: Path) -> FakeVad:
        return vad

    monkeypatch.setattr(table, "load_vad", load_vad)
    return vad


@pytest.fixture
def settings(tmp_path: Path) -> SpeechSettings:
    local = "http://127.0.0.1:9/v1"
    return SpeechSettings(
        models=tmp_path,
        stt={"cloud": OpenAiSttSettings(vendor="openai", base_url=local), "absent": WhisperSettings(model="absent")},
        tts={"cloud": OpenAiTtsSettings(vendor="openai", base_url=local), "quiet": PiperSettings(voices=("absent",))},
    )


async def test_only_what_is_named_is_loaded_and_each_once(settings: SpeechSettings, vad: FakeVad) -> None:
    speech = await service.load(settings, stt=["cloud", "cloud"], tts=["cloud"])
    assert isinstance(speech.stt["cloud"], OpenAiStt)
    assert isinstance(speech.tts["cloud"], OpenAiTts)
    assert (len(speech.stt), len(speech.tts)) == (1, 1)
    assert speech.depths() == {("vad", "vad"): 2, ("stt", "cloud"): 0, ("tts", "cloud"): 0}
    await speech.close()
    assert vad.closed


async def test_the_detector_can_be_left_out(settings: SpeechSettings, vad: FakeVad) -> None:
    speech = await service.load(settings, tts=["cloud"], vad=False)
    assert speech.vad is None
    assert speech.depths() == {("tts", "cloud"): 0}
    await speech.close()
    assert not vad.closed


async def test_an_unknown_name_is_refused_before_anything_is_loaded(settings: SpeechSettings, vad: FakeVad) -> None:
    with pytest.raises(SettingsError, match=r"speech\.stt: there is no engine ear; there are cloud, absent"):
        await service.load(settings, stt=["ear"], tts=[])
    assert not vad.closed


@pytest.mark.parametrize(("stt", "tts"), [(["cloud", "absent"], []), (["cloud"], ["cloud", "quiet"])])
async def test_what_was_loaded_before_an_error_is_closed(
    settings: SpeechSettings, vad: FakeVad, stt: list[str], tts: list[str]
) -> None:
    with pytest.raises(ModelMissing, match="absent"):
        await service.load(settings, stt=stt, tts=tts)
    assert vad.closed


async def test_closing_goes_on_after_an_error_and_reports_it() -> None:
    bad, good = FakeVad(fail=True), FakeVad()
    speech = service.Speech(good, {}, {"bad": bad})  # type: ignore[arg-type, dict-item]
    with pytest.raises(ProviderRejected):
        await speech.close()
    assert bad.closed
    assert good.closed


async def test_every_kind_of_settings_has_its_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for stt in (WhisperSettings(model="x"), WhisperCppSettings(vendor="whisper_cpp", model="x")):
        with pytest.raises(ModelMissing):
            await table.load_stt("ear", stt, tmp_path)
    with pytest.raises(ModelMissing):
        await table.load_tts("mouth", PiperSettings(voices=("x",)), tmp_path)
    monkeypatch.setattr("shutil.which", lambda _name: None)
    with pytest.raises(ModelMissing):
        await table.load_tts("mouth", EspeakSettings(), tmp_path)


def test_nothing_heavy_is_imported_before_an_engine_is_loaded() -> None:
    program = (
        "import sys; from sipserver.speech import service\n"
        f"sys.exit(' '.join(name for name in {HEAVY!r} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


@pytest.mark.models
async def test_the_default_engines_load_and_close(tmp_path: Path) -> None:
    speech = await service.load(SpeechSettings(models=tmp_path), stt=["whisper"], tts=["piper", "espeak"])
    assert list(speech.stt) == ["whisper"]
    assert list(speech.tts) == ["piper", "espeak"]
    await speech.close()
