"""The embedded default with its real model: it answers, and it comes back when its process is killed."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from sipserver.agent.llm import llama_cpp, process, table
from sipserver.agent.llm.contract import Finished, Message, TextDelta
from sipserver.agent.llm.llama_cpp import LlamaCppLlm
from sipserver.agent.settings import LlamaCppSettings, LlmSettings, OpenAiLlmSettings
from sipserver.errors import ModelMissing, ProviderBusy, SettingsError
from tests.fakes.openai_chat import OpenAiChat

ASKED = [Message("system", "You answer the phone for Acme."), Message("user", "Hello, who are you?")]


@pytest.mark.models
async def test_it_answers_and_comes_back_after_its_process_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "FIRST_PAUSE_S", 0.01)
    engines = await table.load({"local": LlamaCppSettings(first_token_timeout_s=30)}, ["local"], tmp_path)
    engine = engines["local"]
    assert isinstance(engine, LlamaCppLlm)
    try:
        await engine.warm(ASKED[:1])
        deltas = [delta async for delta in engine.stream(ASKED, max_tokens=12)]
        assert isinstance(deltas[-1], Finished)
        assert any(isinstance(delta, TextDelta) and delta.text.strip() for delta in deltas)
        pid = engine.worker.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            while engine.worker.pid == pid or not engine.ready:  # noqa: ASYNC110 - another process decides
                await asyncio.sleep(0.05)
        again = [delta async for delta in engine.stream(ASKED, max_tokens=12)]
        assert isinstance(again[-1], Finished)
    finally:
        await engine.close()
    assert not engine.ready


async def test_without_a_process_it_is_busy(tmp_path: Path) -> None:
    engine = LlamaCppLlm("local", LlamaCppSettings(), tmp_path / "model.gguf")
    await engine.warm(ASKED[:1])
    with pytest.raises(ProviderBusy, match="being started"):
        await anext(engine.stream(ASKED))
    await engine.close()


async def test_only_system_prompts_are_warmed_again_and_not_too_many(tmp_path: Path) -> None:
    """What callers said is not kept beyond their call."""
    engine = LlamaCppLlm("local", LlamaCppSettings(), tmp_path / "model.gguf")
    await engine.warm(ASKED)
    for number in range(20):
        await engine.warm([Message("system", f"Agent {number}")])
    async with OpenAiChat() as server:
        await engine._connect(server.base_url.removesuffix("/v1"), "key")
        await engine._lost()
    contents = [request["messages"][0]["content"] for request in server.requests]
    assert contents == [f"Agent {number}" for number in range(4, 20)]


async def test_a_missing_model_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="sipserver models install"):
        await llama_cpp.load("local", LlamaCppSettings(model="no-such-model.gguf"), tmp_path)


async def test_an_unknown_name_is_a_mistake_in_the_settings(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"llm\.other"):
        await table.load({"local": LlamaCppSettings()}, ["other"], tmp_path)


async def test_when_one_cannot_be_loaded_none_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    settings: dict[str, LlmSettings] = {
        "cloud": OpenAiLlmSettings(vendor="openai", model="any"),
        "local": LlamaCppSettings(model="no-such-model.gguf"),
    }
    with pytest.raises(ModelMissing):
        await table.load(settings, settings, tmp_path)
