"""A llama.cpp server that another process of this machine keeps: asked here, started and watched there.

Owns the client and where the server listens now. Refuses to start anything. While nobody says where the server is, the
engine is busy, so that calls go on with the next engine of their chain.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from sipserver.agent.iterators import closing
from sipserver.agent.llm import openai_vendor
from sipserver.agent.llm.contract import Delta, LlmCapabilities, Message, ToolSpec
from sipserver.agent.llm.openai_vendor import OpenAiLlm
from sipserver.agent.settings import LlamaCppSettings, OpenAiLlmSettings
from sipserver.errors import ProviderBusy, ProviderError

Locate = Callable[[str], Awaitable[tuple[str, str]]]
"""(name of the engine) -> (address, key). Raises ProviderError while it is not known."""


class SharedLlm:
    """Satisfies `contract.Llm`. Loop thread."""

    def __init__(self, name: str, settings: LlamaCppSettings, locate: Locate) -> None:
        self.name = name
        self.capabilities = LlmCapabilities(settings.tools, True, settings.vendor, settings.model)
        self._settings, self._locate = settings, locate
        self._where: tuple[str, str] | None = None
        self._client: OpenAiLlm | None = None
        self._doubtful = True
        self._lock = asyncio.Lock()

    @property
    def ready(self) -> bool:
        """The server's address is known, and it answered when it was asked last."""
        return not self._doubtful

    async def stream(
        self, messages: Sequence[Message], *, tools: Sequence[ToolSpec] = (), max_tokens: int = 160
    ) -> AsyncIterator[Delta]:
        """As `contract.Llm.stream`."""
        client = await self._reach()
        try:
            async with closing(client.stream(messages, tools=tools, max_tokens=max_tokens)) as deltas:
                async for delta in deltas:
                    yield delta
        except ProviderBusy:
            self._doubtful = True  # it may be another one by now
            raise

    async def warm(self, messages: Sequence[Message]) -> None:
        """As `contract.Llm.warm`."""
        try:
            await (await self._reach()).warm(messages)
        except ProviderError:
            return

    async def find(self) -> None:
        """Look for the server now, so that the first caller does not wait. Raises nothing but CancelledError."""
        try:
            await self._reach()
        except ProviderError:
            return

    async def close(self) -> None:
        client, self._client, self._where, self._doubtful = self._client, None, None, True
        if client is not None:
            await client.close()

    async def _reach(self) -> OpenAiLlm:
        """The client; asks where the server is if that is not certain. Raises ProviderBusy."""
        async with self._lock:
            if self._client is None or self._doubtful:
                try:
                    where = await self._locate(self.name)
                except ProviderError as problem:
                    raise ProviderBusy(self.name, problem.reason) from problem
                if self._client is None or where != self._where:
                    old, self._client = self._client, await self._connect(*where)
                    self._where = where
                    if old is not None:
                        await old.close()
                self._doubtful = False
            return self._client

    async def _connect(self, address: str, key: str) -> OpenAiLlm:
        return await openai_vendor.connect(self.name, served(self._settings, address), key, local=True)


def served(settings: LlamaCppSettings, address: str) -> OpenAiLlmSettings:
    """The settings of a llama.cpp server at an address, as the client takes them."""
    return OpenAiLlmSettings(
        vendor="openai",
        base_url=f"{address}/v1",
        model=settings.model,
        tools=settings.tools,
        first_token_timeout_s=settings.first_token_timeout_s,
        temperature=settings.temperature,
        concurrency=settings.concurrency,
    )
