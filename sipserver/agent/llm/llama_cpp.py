"""The embedded default: a GGUF file served by llama.cpp in a process of our own.

Owns the worker and the client that speaks to it. While the worker starts or has died the engine is busy, so that calls
go on with the next engine of their chain; a new worker's prompt cache is warmed with what was warmed before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from sipserver.agent.iterators import closing
from sipserver.agent.llm import openai_vendor
from sipserver.agent.llm.contract import Delta, LlmCapabilities, Message, ToolSpec
from sipserver.agent.llm.openai_vendor import OpenAiLlm
from sipserver.agent.llm.process import MODULE, WorkerProcess
from sipserver.agent.llm.shared import served
from sipserver.agent.settings import LlamaCppSettings
from sipserver.errors import ProviderBusy
from sipserver.speech import models

_MOST_WARM = 16


class LlamaCppLlm:
    """Loop thread."""

    def __init__(self, name: str, settings: LlamaCppSettings, model: Path) -> None:
        self.name = name
        self.capabilities = LlmCapabilities(settings.tools, True, settings.vendor, settings.model)
        self._settings = settings
        self._client: OpenAiLlm | None = None
        self.where: tuple[str, str] | None = None
        """(address, key) for other processes of the machine; None while no worker listens."""
        self._warm: dict[tuple[Message, ...], None] = {}
        arguments = ["-m", MODULE, "--model", str(model)]
        for option in ("threads", "context", "slots"):
            arguments += [f"--{option}", str(getattr(settings, option))]
        self.worker = WorkerProcess(name, arguments, self._connect, self._lost)

    @property
    def ready(self) -> bool:
        """A worker listens."""
        return self._client is not None

    async def start(self) -> None:
        """Raises ProviderTimeout when the worker does not listen in time."""
        await self.worker.start()

    async def stream(
        self, messages: Sequence[Message], *, tools: Sequence[ToolSpec] = (), max_tokens: int = 160
    ) -> AsyncIterator[Delta]:
        """As `contract.Llm.stream`."""
        if self._client is None:
            raise ProviderBusy(self.name, "the model is being started")
        async with closing(self._client.stream(messages, tools=tools, max_tokens=max_tokens)) as deltas:
            async for delta in deltas:
                yield delta

    async def warm(self, messages: Sequence[Message]) -> None:
        """As `contract.Llm.warm`; the last 16 system prompts are warmed again when the worker was restarted."""
        if all(message.role == "system" for message in messages):
            self._warm.pop(tuple(messages), None)
            self._warm[tuple(messages)] = None
            if len(self._warm) > _MOST_WARM:
                del self._warm[next(iter(self._warm))]
        if self._client is not None:
            await self._client.warm(messages)

    async def close(self) -> None:
        await self.worker.close()

    async def _connect(self, address: str, key: str) -> None:
        client = await openai_vendor.connect(self.name, served(self._settings, address), key, local=True)
        for messages in self._warm:
            await client.warm(messages)
        self._client, self.where = client, (address, key)

    async def _lost(self) -> None:
        client, self._client, self.where = self._client, None, None
        if client is not None:
            await client.close()


async def load(name: str, settings: LlamaCppSettings, models_folder: Path) -> LlamaCppLlm:
    """Find the model, start the worker, wait until it serves. Raises ModelMissing, ProviderTimeout."""
    model = await asyncio.to_thread(models.find, settings.model, models_folder)
    engine = LlamaCppLlm(name, settings, model)
    await engine.start()
    return engine
