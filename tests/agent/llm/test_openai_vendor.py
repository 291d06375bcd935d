"""The streaming client against a server that speaks the real format over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from sipserver.agent.iterators import closing
from sipserver.agent.llm import openai_vendor
from sipserver.agent.llm.contract import Delta, Finished, Message, TextDelta, ToolCall, ToolCallDelta, ToolSpec
from sipserver.agent.llm.openai_vendor import OpenAiLlm
from sipserver.agent.settings import OpenAiLlmSettings
from sipserver.errors import ProviderBusy, ProviderError, ProviderRejected, ProviderTimeout, SettingsError
from tests.fakes import openai_chat
from tests.fakes.openai_chat import ForgetfulChat, OpenAiChat, Step

HELLO = [Message("system", "You answer the phone."), Message("user", "Hello?")]


@asynccontextmanager
async def engine_for(server: OpenAiChat, **settings: Any) -> AsyncIterator[OpenAiLlm]:
    given = OpenAiLlmSettings(vendor="openai", base_url=server.base_url, model="fake", **settings)
    engine = await openai_vendor.connect("cloud", given, "secret")
    try:
        yield engine
    finally:
        await engine.close()


async def ask(engine: OpenAiLlm, messages: list[Message] | None = None, **more: Any) -> list[Delta]:
    return [delta async for delta in engine.stream(messages or HELLO, **more)]


async def test_words_come_as_they_are_written_and_the_usage_last() -> None:
    async with OpenAiChat() as server, engine_for(server) as engine:
        deltas = await ask(engine, max_tokens=50)
    assert deltas == [TextDelta("Hello"), TextDelta(" there."), Finished("stop", 12, 3)]
    request = server.requests[0]
    assert request["messages"] == [
        {"role": "system", "content": "You answer the phone."},
        {"role": "user", "content": "Hello?"},
    ]
    assert (request["max_tokens"], request["stream"], request["temperature"]) == (50, True, 0.3)
    assert server.keys == ["Bearer secret"]


async def test_the_pieces_of_tool_calls_are_joined() -> None:
    first = openai_chat.tool_call("book", '{"pe', 'ople": 2', "}")
    second = openai_chat.tool_call("end_call", id_="call_def", index=1)
    tool = ToolSpec("book", "Book a table.", {"type": "object", "properties": {}})
    async with OpenAiChat([*first[:-2], *second]) as server, engine_for(server) as engine:
        deltas = await ask(engine, tools=[tool])
    assert deltas == [
        ToolCallDelta(ToolCall("call_abc", "book", '{"people": 2}')),
        ToolCallDelta(ToolCall("call_def", "end_call", "{}")),
        Finished("tool_calls", 12, 3),
    ]
    assert server.requests[0]["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "book",
                "description": "Book a table.",
                "parameters": {"type": "object", "properties": {}},
            },
        }
    ]


async def test_a_tools_answer_goes_back_as_the_format_wants_it() -> None:
    messages = [
        *HELLO,
        Message("assistant", "", (ToolCall("c1", "book", "{}"),)),
        Message("tool", '{"ok": true}', tool_call_id="c1"),
    ]
    async with OpenAiChat() as server, engine_for(server) as engine:
        await ask(engine, messages)
    call = {"id": "c1", "type": "function", "function": {"name": "book", "arguments": "{}"}}
    assert server.requests[0]["messages"][2:] == [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": '{"ok": true}', "tool_call_id": "c1"},
    ]


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (openai_chat.status(401, "Incorrect API key"), ProviderRejected, "401"),
        (openai_chat.status(404, "no such model"), ProviderRejected, "no such model"),
        (openai_chat.status(429, "slow down"), ProviderBusy, "too many"),
        (openai_chat.status(429, "no money", "insufficient_quota"), ProviderRejected, "quota"),
        (openai_chat.status(500, "oops"), ProviderBusy, "500"),
        (openai_chat.error_in_stream("model crashed"), ProviderRejected, "model crashed"),
        ([*openai_chat.text("Hel")[:2], None], ProviderBusy, "connection failed"),
        (openai_chat.text("Hel")[:2], ProviderBusy, "ended before"),
        ([b"data: {not json\n\n"], ProviderRejected, "no JSON"),
        ([5.0, *openai_chat.text("late")], ProviderTimeout, "within 0.1 s"),
        ([*openai_chat.text("late")[:1], 5.0], ProviderTimeout, "within 0.1 s"),
    ],
)
async def test_what_goes_wrong_has_a_name(
    answer: list[Step] | web.Response, error: type[ProviderError], words: str
) -> None:
    patience_s = 0.1 if error is ProviderTimeout else 3  # a busy machine may take its time where time is not the point
    async with OpenAiChat(answer) as server, engine_for(server, first_token_timeout_s=patience_s) as engine:
        with pytest.raises(error, match=words) as caught:
            await ask(engine)
    assert caught.value.engine == "cloud"


async def test_after_the_first_token_the_engine_may_take_its_time() -> None:
    answer = openai_chat.text("Slow", " words.")
    answer.insert(2, 0.8)
    async with OpenAiChat(answer) as server, engine_for(server, first_token_timeout_s=0.5) as engine:
        assert (await ask(engine))[-1] == Finished("stop", 12, 3)


async def test_nobody_listens(free_port: int) -> None:
    server = OpenAiChat()
    server.base_url = f"http://127.0.0.1:{free_port}/v1"
    async with engine_for(server) as engine:
        with pytest.raises(ProviderBusy, match="connection failed"):
            await ask(engine)


async def test_a_kept_connection_that_the_server_closes_is_replaced() -> None:
    async with ForgetfulChat() as server:
        settings = OpenAiLlmSettings(vendor="openai", base_url=server.base_url, model="fake")
        engine = await openai_vendor.connect("local", settings, "secret")
        try:
            for _ in range(4):
                assert TextDelta("Hello") in await ask(engine)
        finally:
            await engine.close()
    assert server.connections == 4


async def test_beyond_its_bound_it_is_busy_and_afterwards_free_again() -> None:
    hanging = [*openai_chat.text("One")[:2], 30.0]
    async with OpenAiChat(hanging, openai_chat.text("Two")) as server, engine_for(server, concurrency=1) as engine:
        async with closing(engine.stream(HELLO)) as first:
            assert await anext(first) == TextDelta("One")
            with pytest.raises(ProviderBusy, match="1 requests"):
                await ask(engine)
        assert (await ask(engine))[0] == TextDelta("Two")


async def test_closing_the_stream_ends_the_request() -> None:
    async with OpenAiChat([*openai_chat.text("One")[:2], 30.0]) as server, engine_for(server) as engine:
        async with closing(engine.stream(HELLO)) as stream:
            await anext(stream)
        async with asyncio.timeout(5):
            await server.dropped.wait()


async def test_warming_never_raises() -> None:
    answers = openai_chat.text("x"), openai_chat.status(500, "oops")
    async with OpenAiChat(*answers) as server, engine_for(server) as engine:
        await engine.warm(HELLO)
        await engine.warm(HELLO)
    assert [request["max_tokens"] for request in server.requests] == [1, 1]


async def test_openai_itself_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(SettingsError, match="OPENAI_API_KEY"):
        await openai_vendor.load("cloud", OpenAiLlmSettings(vendor="openai", model="any"))


async def test_other_servers_need_none_and_openai_has_its_own_name_for_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    async with OpenAiChat() as server:
        settings = OpenAiLlmSettings(vendor="openai", base_url=server.base_url, model="fake")
        engine = await openai_vendor.load("ollama", settings)
        await ask(engine)
        await engine.close()
    assert server.keys == ["Bearer none"]
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    engine = await openai_vendor.load("cloud", OpenAiLlmSettings(vendor="openai", model="any"))
    assert engine._limit_name == "max_completion_tokens"
    await engine.close()
