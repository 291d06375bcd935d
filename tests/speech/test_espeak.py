"""espeak-ng: real processes where the program is there, scripted ones for what a real one seldom does."""

from __future__ import annotations

import asyncio
import shutil
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from sipserver.audio.frame import Samples
from sipserver.errors import ModelMissing, ProviderBusy, ProviderError, ProviderRejected, ProviderTimeout
from sipserver.speech.settings import EspeakSettings
from sipserver.speech.vendors import espeak
from sipserver.speech.vendors.espeak import Espeak

needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")


async def spoken(engine: Espeak, text: str, **options: str) -> list[Samples]:
    return [samples async for samples in engine.synthesise(text, **options)]


@pytest.fixture
async def engine() -> AsyncIterator[Espeak]:
    engine = await espeak.load("fallback", EspeakSettings())
    yield engine
    await engine.close()


@needs_espeak
async def test_it_speaks_at_16_khz_in_the_callers_language(engine: Espeak) -> None:
    for language in ("en", "de-AT", "zh", "no"):
        sound = np.concatenate(await spoken(engine, "3, 4, 5.", language=language))
        assert sound.dtype == np.int16
        assert 0.5 < len(sound) / 16_000 < 4
        assert np.abs(sound.astype(int)).max() > 3000


@needs_espeak
async def test_it_knows_its_languages_and_refuses_others(engine: Espeak) -> None:
    assert {"en", "de", "fr", "zh"} <= (engine.capabilities.languages or set())
    with pytest.raises(ProviderRejected, match="tlh"):
        await spoken(engine, "Qapla'", language="tlh")


@needs_espeak
async def test_voices_are_checked_before_they_reach_the_command_line(engine: Espeak) -> None:
    assert await spoken(engine, "Hello.", voice="en-gb+f3")
    for voice in ("--help", "../x", "en us", "-w"):
        with pytest.raises(ProviderRejected, match="no espeak-ng voice"):
            await spoken(engine, "Hello.", voice=voice)
    with pytest.raises(ProviderRejected, match="said nothing"):
        await spoken(engine, "Hello.", voice="nosuchvoice")


@needs_espeak
async def test_text_is_only_text(engine: Espeak, tmp_path: Path) -> None:
    target = tmp_path / "made"
    assert await spoken(engine, f"-w {target}; touch {target} $(touch {target})")
    assert not target.exists()
    assert await spoken(engine, " ") == []


@needs_espeak
async def test_giving_up_ends_the_process(engine: Espeak) -> None:
    stream = engine.synthesise("This takes quite a while to say. " * 200)
    await anext(stream)
    assert len(engine._processes) == 1
    await stream.aclose()
    assert not engine._processes


def program(folder: Path, script: str) -> str:
    """A stand-in for espeak-ng."""
    file = folder / "espeak"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return str(file)


def scripted(path: str, **settings: float) -> Espeak:
    return Espeak("fallback", EspeakSettings.model_validate(settings), path, frozenset({"en"}))


async def test_a_program_that_hangs_is_a_timeout_and_is_ended(tmp_path: Path) -> None:
    engine = scripted(program(tmp_path, "exec sleep 60"), timeout_s=0.05)
    with pytest.raises(ProviderTimeout, match="no sound"):
        await spoken(engine, "Hello.")
    assert not engine._processes


async def test_a_program_that_does_not_read_is_refused_quietly(tmp_path: Path) -> None:
    engine = scripted(program(tmp_path, "exit 3"))
    with pytest.raises(ProviderRejected, match="exit status 3"):
        await spoken(engine, "Hello. " * 20_000)


async def test_a_program_that_lingers_after_its_last_word_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(espeak, "_LINGER_S", 0.02)
    engine = scripted(program(tmp_path, "exec 1>&-; exec sleep 60"))
    with pytest.raises(ProviderRejected, match="exit status -9"):
        await spoken(engine, "Hello.")
    assert not engine._processes


async def test_a_program_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match="did not start"):
        await spoken(scripted(str(tmp_path / "none")), "Hello.")


async def test_processes_are_bounded_and_closing_ends_them(tmp_path: Path) -> None:
    engine = scripted(program(tmp_path, "exec sleep 60"), processes=1, queue=1, timeout_s=30)
    tasks = [asyncio.create_task(spoken(engine, "Hello.")) for _ in range(2)]
    async with asyncio.timeout(10):
        while not engine._processes or not engine.depth:  # noqa: ASYNC110 - a process has no event for its start
            await asyncio.sleep(0.001)
    with pytest.raises(ProviderBusy):
        await spoken(engine, "Hello.")
    tasks[1].cancel()
    await asyncio.wait([tasks[1]])
    await engine.close()
    with pytest.raises(ProviderRejected):
        await tasks[0]


async def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(ModelMissing, match="apt-get install espeak-ng"):
        await espeak.load("fallback", EspeakSettings())
