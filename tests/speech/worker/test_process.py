"""The work of a speech process and the engine rooms of its clients, with the one engine that needs no model."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sipserver.agent.voice import Voice
from sipserver.audio.frame import Samples
from sipserver.dialplan import book
from sipserver.dialplan.book import Book
from sipserver.dialplan.watch import snapshot
from sipserver.engines import EngineRoom
from sipserver.errors import ModelMissing, ProviderBusy
from sipserver.fleet.speech import SpeechWorker, uris
from sipserver.settings import Settings
from sipserver.speech import hosted, models
from sipserver.speech.vendors.espeak import Espeak
from tests.fakes.until import until

PLAN = """tenant: acme
flows:
  main: [answer, {say: Welcome to Acme.}]
routes:
  - {match: {}, flow: main}
"""
AGENT = """tenant: other
agents:
  helper: {prompt: Be short., stt: [whisper], llm: {use: local}, tts: {use: espeak}}
flows:
  main: [answer, {agent: {use: helper, on: {failed: end}}}]
routes:
  - {match: {to: "100"}, flow: main}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return fleet(tmp_path)


def fleet(folder: Path, **more: Any) -> Settings:
    (folder / "dialplans").mkdir(exist_ok=True)
    (folder / "dialplans/acme.yaml").write_text(PLAN)
    return Settings.model_validate(
        {
            "dialplans": str(folder / "dialplans"),
            "speech": {"models": str(folder / "models"), "tts": {"espeak": {"vendor": "espeak"}}},
            "fleet": {"runtime": str(folder / "run")},
            **more,
        }
    )


def plans(settings: Settings) -> Book:
    return book.read(settings.dialplans).book


async def spoken(room: EngineRoom, text: str) -> Samples:
    voice = Voice(room.engines.tts, lambda _event: None, room.cache)
    chunks = voice.synthesise(text, chain=["espeak"], language="en", cacheable=True)
    return np.concatenate([samples async for samples in chunks])


def count_syntheses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    original = Espeak.synthesise

    def counted(self: Espeak, text: str, **more: Any) -> Any:
        said.append(text)
        return original(self, text, **more)

    monkeypatch.setattr(Espeak, "synthesise", counted)
    return said


async def test_fixed_texts_are_spoken_once_a_machine_and_kept_there(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = count_syntheses(monkeypatch)
    worker = SpeechWorker(settings)
    await worker.start()
    await until(lambda: said == ["Welcome to Acme."] and worker.kept("espeak", "", "en", said[0]) is not None)
    rooms = [EngineRoom(settings, uris(settings)) for _ in range(3)]
    for room in rooms:
        await room.load(plans(settings))
        await room.warm(plans(settings))
        assert len(await spoken(room, "Welcome to Acme.")) > 8_000
        assert len(room.cache) == 0, "no copy in every process"
        assert room.engines.tts["espeak"].capabilities.languages is not None
        await room.close()
    assert said == ["Welcome to Acme."]
    await worker.close()


async def test_what_a_process_speaks_itself_it_keeps(settings: Settings) -> None:
    room = EngineRoom(settings, uris(settings))
    sound = np.ones(100, np.int16)
    room.cache.put(("espeak", "", "en", "x"), sound)
    room.cache.put(("cloud", "", "en", "x"), sound)
    assert room.cache.get(("espeak", "", "en", "x")) is None
    assert room.cache.get(("cloud", "", "en", "x")) is sound
    await room.close()


async def test_a_client_that_is_there_first_waits_for_the_worker(settings: Settings) -> None:
    room = EngineRoom(settings, uris(settings))
    loading = asyncio.create_task(room.load(plans(settings)))
    await asyncio.sleep(0)
    worker = SpeechWorker(settings)
    await worker.start()
    await loading
    assert len(await spoken(room, "Good morning.")) > 4_000
    await room.close()
    await worker.close()


async def test_without_a_worker_calls_are_taken_and_its_engines_are_busy_until_it_comes(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosted, "WAIT_S", 0.05)
    room = EngineRoom(settings, uris(settings))
    await room.load(plans(settings))
    with pytest.raises(ProviderBusy):
        await spoken(room, "Hello.")
    assert [check.name for check in room.checks(plans(settings)) if not check.ok] == ["tts.espeak"]
    worker = SpeechWorker(settings)
    await worker.start()
    await until(lambda: room.engines.tts["espeak"].capabilities.languages is not None)
    assert len(await spoken(room, "Hello.")) > 4_000
    assert all(check.ok for check in room.checks(plans(settings)))
    await room.close()
    await worker.close()


async def test_a_reloaded_dialplan_brings_engines_that_were_not_needed_before(tmp_path: Path) -> None:
    settings = fleet(
        tmp_path, speech={"models": str(tmp_path), "tts": {name: {"vendor": "espeak"} for name in ("espeak", "other")}}
    )
    acme = tmp_path / "dialplans/acme.yaml"
    acme.write_text(PLAN.replace("{say: Welcome to Acme.}", "echo"))
    worker = SpeechWorker(settings, snapshot=snapshot(settings.dialplans))
    await worker.start()
    assert list(worker.tts) == []
    acme.write_text(PLAN)
    room = EngineRoom(settings, uris(settings))
    await room.load(plans(settings))
    assert sorted(worker.tts) == ["espeak", "other"]
    assert len(await spoken(room, "Hello.")) > 4_000
    await worker.reload()
    await until(lambda: worker.kept("espeak", "", "en", "Welcome to Acme.") is not None)
    await room.close()
    await worker.close()


async def test_a_worker_without_some_model_or_with_a_wrong_dialplan_serves_the_rest(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = models.find
    monkeypatch.setattr(models, "find", lambda name, folder: find(name if name == "silero" else "/none", folder))
    (tmp_path / "dialplans/other.yaml").write_text(AGENT)
    (tmp_path / "dialplans/wrong.yaml").write_text("tenant: [")
    worker = SpeechWorker(settings)
    await worker.start()
    assert (list(worker.stt), list(worker.tts)) == ([], ["espeak"])
    await worker.close()


async def test_a_worker_that_starts_without_dialplans_finds_them_later(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sipserver.fleet.speech.LOOK_S", 0.02)
    (settings.dialplans / "acme.yaml").unlink()
    worker = SpeechWorker(settings)
    await worker.start()
    assert list(worker.tts) == []
    (settings.dialplans / "acme.yaml").write_text(PLAN)
    await until(lambda: worker.kept("espeak", "", "en", "Welcome to Acme.") is not None)
    await worker.close()


async def test_the_client_learns_that_a_model_is_missing(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sipserver.speech.models._package_folder", lambda _package: None)
    worker = SpeechWorker(settings)
    await worker.start()
    (tmp_path / "dialplans/other.yaml").write_text(AGENT)
    room = EngineRoom(settings, uris(settings))
    with pytest.raises(ModelMissing, match="sipserver models install"):
        await room.load(plans(settings))
    assert (room.engines.stt, room.engines.tts) == ({}, {})
    await room.close()
    await worker.close()


async def test_workers_have_sockets_of_their_own_and_a_dead_ones_work_is_done_by_the_other(tmp_path: Path) -> None:
    settings = fleet(tmp_path, fleet={"runtime": str(tmp_path / ("deep" * 30)), "speech_workers": 2})
    assert len(set(uris(settings))) == 2
    workers = [SpeechWorker(settings, index) for index in range(2)]
    for worker in workers:
        await worker.start()
    room = EngineRoom(settings, uris(settings))
    await room.load(plans(settings))
    for worker in workers:
        assert list(worker.tts) == ["espeak"]
    await workers[0].close()
    for text in ("One.", "Two.", "Three."):
        assert len(await spoken(room, text)) > 2_000
    assert set(workers[1].depths()) >= {"tts.espeak", "connections"}
    await room.close()
    await workers[1].close()


async def test_closing_twice_and_before_the_start_does_no_harm(settings: Settings) -> None:
    worker = SpeechWorker(settings)
    await worker.close()
    await asyncio.wait_for(worker.run(), 1)
    await worker.close()
