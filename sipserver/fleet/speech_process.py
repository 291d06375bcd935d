"""A speech process of the fleet: one speech worker, told when to begin and to end by the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from sipserver.fleet.control import Control
from sipserver.fleet.process import ChildSpec
from sipserver.fleet.speech import SpeechWorker


async def main(spec: ChildSpec, control: Control) -> None:
    """Serve the machine's local engines until told to end."""
    worker = SpeechWorker(spec.settings, spec.index)
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = asyncio.create_task(worker.reload(), name="reload")
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    async def drain(_within_s: float) -> None:
        """Whoever is served finds another worker, or the one that follows."""

    def facts() -> dict[str, Any]:
        return {"queues": dict(worker.depths())}

    async with contextlib.AsyncExitStack() as stack:
        await worker.start()
        stack.push_async_callback(worker.close)
        control.beat_with(facts)
        await control.ready(uris=list(worker.listening))
        await control.obey(drain=drain, reload=reload)
