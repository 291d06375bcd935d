"""Language models behind OpenAI's /chat/completions: OpenAI, Ollama, vLLM, llama.cpp. Streaming, by `openai`.

Owns the wire format and the mapping of its errors. One client serves all calls; beyond `concurrency` requests at a time
it is busy. Source: https://platform.openai.com/docs/api-reference/chat-streaming.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sipserver.agent.iterators import closing
from sipserver.agent.llm.contract import (
    Delta,
    Finished,
    LlmCapabilities,
    Message,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolSpec,
)
from sipserver.agent.settings import OpenAiLlmSettings
from sipserver.errors import ProviderBusy, ProviderError, ProviderRejected, ProviderTimeout, SettingsError
from sipserver.speech.vendors import openai_client

if TYPE_CHECKING:
    import openai

_CONNECT_S = 3.0
_READ_S = 60.0
"""A stream that says nothing for this long is dead; the conversation's own patience is much shorter."""
_OPENAI_HOST = "api.openai.com"
_NO_KEY = "none"
"""Servers without keys still get the header that the protocol demands."""


class OpenAiLlm:
    """Loop thread. `close` ends the connections."""

    def __init__(self, name: str, settings: OpenAiLlmSettings, api_key: str, *, local: bool = False) -> None:
        import openai

        self.name = name
        self.capabilities = LlmCapabilities(settings.tools, local, settings.vendor, settings.model)
        self._settings = settings
        self._running = 0
        self._openai = openai
        # Newer models of OpenAI refuse the name that all other servers know.
        openais = urlsplit(settings.base_url).hostname == _OPENAI_HOST
        self._limit_name = "max_completion_tokens" if openais else "max_tokens"
        self._client: openai.AsyncOpenAI = openai.AsyncOpenAI(
            base_url=settings.base_url,
            api_key=api_key,
            max_retries=0,
            timeout=openai.Timeout(_READ_S, connect=_CONNECT_S),
            http_client=openai_client.without_tls(settings.base_url),
        )

    async def stream(
        self, messages: Sequence[Message], *, tools: Sequence[ToolSpec] = (), max_tokens: int = 160
    ) -> AsyncIterator[Delta]:
        """As `contract.Llm.stream`. The first token's deadline includes connecting."""
        if self._running >= self._settings.concurrency:
            raise ProviderBusy(self.name, f"{self._running} requests are running")
        self._running += 1
        try:
            async with self._errors(), closing(self._stream(messages, tools, max_tokens)) as deltas:
                async for delta in deltas:
                    yield delta
        finally:
            self._running -= 1

    async def warm(self, messages: Sequence[Message]) -> None:
        """Have the prompt read, so that its cache is filled; one token is asked for and thrown away."""
        try:
            async with self._errors():
                wired = [_wire(message) for message in messages]
                await self._ask({"messages": wired, "model": self._settings.model, "max_tokens": 1})
        except ProviderError:
            return

    async def close(self) -> None:
        await self._client.close()

    async def _stream(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec], max_tokens: int
    ) -> AsyncIterator[Delta]:
        request: dict[str, Any] = {
            "model": self._settings.model,
            "messages": [_wire(message) for message in messages],
            "temperature": self._settings.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
            self._limit_name: max_tokens,
        }
        if tools:
            request["tools"] = [_wire_tool(tool) for tool in tools]
        deadline = asyncio.get_running_loop().time() + self._settings.first_token_timeout_s
        async with asyncio.timeout_at(deadline):
            chunks = await self._ask(request)
        answer = _Answer()
        try:
            iterator = aiter(chunks)
            while True:
                async with asyncio.timeout_at(None if answer.begun else deadline):
                    chunk = await anext(iterator, None)
                if chunk is None:
                    break
                for text in answer.take(chunk):
                    yield TextDelta(text)
        finally:
            await chunks.close()
        if not answer.reason:
            raise ProviderBusy(self.name, "the stream ended before the answer did")
        for call in answer.calls():
            yield ToolCallDelta(call)
        yield Finished(answer.reason, answer.tokens_in, answer.tokens_out)

    async def _ask(self, request: dict[str, Any]) -> Any:
        """Send a request. A kept connection may be closed by the server just then (RFC 9112, section 9.3.1, allows to
        ask again on another one); llama.cpp closes it after every stream. Nothing else is retried here.
        """
        try:
            return await self._client.chat.completions.create(**request)
        except self._openai.APITimeoutError:
            raise
        except self._openai.APIConnectionError:
            return await self._client.chat.completions.create(**request)

    @asynccontextmanager
    async def _errors(self) -> AsyncIterator[None]:
        """The package's errors as ours. What the provider wrote is cut short: it may repeat the prompt."""
        wrong = self._openai
        try:
            yield
        except (TimeoutError, wrong.APITimeoutError) as error:
            reason = f"no token within {self._settings.first_token_timeout_s:g} s"
            raise ProviderTimeout(self.name, reason) from error
        except wrong.RateLimitError as error:
            if error.code == "insufficient_quota":
                raise ProviderRejected(self.name, "the quota is used up") from error
            raise ProviderBusy(self.name, "too many requests") from error
        except wrong.APIConnectionError as error:
            raise ProviderBusy(self.name, "the connection failed") from error
        except wrong.APIStatusError as error:
            kind = ProviderBusy if error.status_code >= 500 else ProviderRejected
            raise kind(self.name, f"status {error.status_code}: {error.message[:200]}") from error
        except wrong.OpenAIError as error:
            raise ProviderRejected(self.name, str(error)[:200]) from error
        except ValueError as error:
            raise ProviderRejected(self.name, "answered with something that is no JSON") from error


class _Answer:
    """What a stream has said so far; tool calls come in pieces that are joined by their index."""

    def __init__(self) -> None:
        self.begun = False
        self.reason = ""
        self.tokens_in: int | None = None
        self.tokens_out: int | None = None
        self._calls: dict[int, list[str]] = {}

    def take(self, chunk: Any) -> list[str]:
        """Take one chunk in; returns its text, if any."""
        if chunk.usage is not None:
            self.tokens_in, self.tokens_out = chunk.usage.prompt_tokens, chunk.usage.completion_tokens
        texts: list[str] = []
        for choice in chunk.choices:
            self.reason = choice.finish_reason or self.reason
            if choice.delta is None:
                continue
            for piece in choice.delta.tool_calls or ():
                self.begun = True
                self._join(piece)
            if choice.delta.content:
                self.begun = True
                texts.append(choice.delta.content)
        return texts

    def calls(self) -> list[ToolCall]:
        return [ToolCall(id_, name, arguments or "{}") for id_, name, arguments in self._calls.values() if name]

    def _join(self, piece: Any) -> None:
        parts = self._calls.setdefault(piece.index, [f"call_{piece.index}", "", ""])
        if piece.id:
            parts[0] = piece.id
        if piece.function is not None:
            parts[1] += piece.function.name or ""
            parts[2] += piece.function.arguments or ""


def _wire(message: Message) -> dict[str, Any]:
    wired: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        wired["content"] = message.content or None
        wired["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.role == "tool":
        wired["tool_call_id"] = message.tool_call_id
    return wired


def _wire_tool(tool: ToolSpec) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


async def load(name: str, settings: OpenAiLlmSettings) -> OpenAiLlm:
    """The engine; imports `openai` in a thread (half a second). Raises SettingsError when the key is not set."""
    api_key = os.environ.get(settings.api_key_env, "")
    if not api_key and urlsplit(settings.base_url).hostname == _OPENAI_HOST:
        raise SettingsError(f"the variable {settings.api_key_env} is not set", key=f"llm.{name}.api_key_env")
    return await connect(name, settings, api_key or _NO_KEY)


async def connect(name: str, settings: OpenAiLlmSettings, api_key: str, *, local: bool = False) -> OpenAiLlm:
    """The engine with a key that is known."""
    await asyncio.to_thread(openai_client.preload)
    return OpenAiLlm(name, settings, api_key, local=local)
