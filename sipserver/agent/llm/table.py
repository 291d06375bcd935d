"""Which vendor loads which settings. An explicit table: nothing registers itself on import."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path

from sipserver.agent.llm import llama_cpp, openai_vendor
from sipserver.agent.llm.contract import Llm
from sipserver.agent.settings import LlamaCppSettings, LlmSettings
from sipserver.errors import SettingsError


async def load(settings: Mapping[str, LlmSettings], names: Iterable[str], models_folder: Path) -> dict[str, Llm]:
    """Load the engines that are used, at the same time. What was loaded is closed again when one fails.

    Raises SettingsError for a name that the settings do not have, ModelMissing, ProviderTimeout.
    """
    wanted = list(dict.fromkeys(names))
    for name in wanted:
        if name not in settings:
            raise SettingsError(f"there is no language model of this name ({', '.join(settings)})", key=f"llm.{name}")
    results = await asyncio.gather(
        *(_load(name, settings[name], models_folder) for name in wanted), return_exceptions=True
    )
    engines = {
        name: result for name, result in zip(wanted, results, strict=True) if not isinstance(result, BaseException)
    }
    for result in results:
        if isinstance(result, BaseException):
            for engine in engines.values():
                await engine.close()
            raise result
    return engines


async def _load(name: str, settings: LlmSettings, models_folder: Path) -> Llm:
    if isinstance(settings, LlamaCppSettings):
        return await llama_cpp.load(name, settings, models_folder)
    return await openai_vendor.load(name, settings)
