"""A language model's server in another process: found, lost, found again."""

from __future__ import annotations

import asyncio

import pytest

from sipserver.agent.llm.contract import Message, TextDelta
from sipserver.agent.llm.shared import SharedLlm
from sipserver.agent.settings import LlamaCppSettings
from sipserver.errors import ProviderBusy, ProviderRejected
from tests.fakes.openai_chat import OpenAiChat, text

ASKED = [Message("user", "Are you open?")]


class Directory:
    """Says where the server is. where: empty while it is not known."""

    def __init__(self, url: str = "", key: str = "secret") -> None:
        self.url, self.key = url, key
        self.asked = 0

    async def __call__(self, name: str) -> tuple[str, str]:
        self.asked += 1
        if not self.url:
            raise ProviderRejected(name, "is being started")
        return self.url, self.key

    def knows(self, server: OpenAiChat) -> None:
        self.url = server.base_url.removesuffix("/v1")


async def said(engine: SharedLlm) -> str:
    return "".join([delta.text async for delta in engine.stream(ASKED) if isinstance(delta, TextDelta)])


async def test_it_is_asked_where_it_listens_with_its_key_and_looked_for_once() -> None:
    where = Directory()
    engine = SharedLlm("local", LlamaCppSettings(tools=True), where)
    async with OpenAiChat(text("Yes.")) as server:
        where.knows(server)
        await engine.find()
        assert engine.ready
        assert [await said(engine) for _ in range(3)] == ["Yes."] * 3
        assert server.keys == ["Bearer secret"] * 3
        assert where.asked == 1
        assert (engine.capabilities.tools, engine.capabilities.local) == (True, True)
        await engine.warm([Message("system", "Be short.")])
        assert len(server.requests) == 4
        await engine.close()


async def test_while_nobody_knows_it_is_busy() -> None:
    engine = SharedLlm("local", LlamaCppSettings(), Directory())
    await engine.find()
    assert not engine.ready
    with pytest.raises(ProviderBusy, match="being started"):
        await said(engine)
    await engine.warm(ASKED)
    await engine.close()


async def test_a_restarted_server_is_found_at_its_new_place() -> None:
    where = Directory()
    engine = SharedLlm("local", LlamaCppSettings(), where)
    async with OpenAiChat(text("Old.")) as server:
        where.knows(server)
        assert await said(engine) == "Old."
    with pytest.raises(ProviderBusy):
        await said(engine)
    assert not engine.ready
    async with OpenAiChat(text("New.")) as server:
        where.knows(server)
        where.key = "other"
        assert await said(engine) == "New."
        assert server.keys == ["Bearer other"]
        assert engine.ready
        await engine.close()


async def test_many_calls_look_for_it_once() -> None:
    where = Directory()
    engine = SharedLlm("local", LlamaCppSettings(), where)
    async with OpenAiChat(text("Yes.")) as server:
        where.knows(server)
        assert await asyncio.gather(*(said(engine) for _ in range(5))) == ["Yes."] * 5
        assert where.asked == 1
        await engine.close()
