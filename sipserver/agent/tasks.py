"""Tasks that somebody keeps: started by name, awaited by `close`. Nothing is ever fired and forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class Tasks:
    """Loop thread. An exception that nobody reads is handed to on_error; a cancelled task is not an error."""

    def __init__(self, on_error: Callable[[str, BaseException], None]) -> None:
        self._on_error = on_error
        self._running: set[asyncio.Task[Any]] = set()

    def start(
        self,
        name: str,
        work: Coroutine[Any, Any, Result],
        then: Callable[[asyncio.Task[Result]], None] | None = None,
    ) -> asyncio.Task[Result]:
        """Start and keep. `then` is called with the ended task; without it an exception goes to on_error."""
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(lambda ended: self._ended(ended, then))
        return task

    async def close(self) -> None:
        """Cancel what runs and wait for its end."""
        while self._running:
            running = list(self._running)
            for task in running:
                task.cancel()
            await asyncio.wait(running)
            self._running.difference_update(running)

    def _ended(self, task: asyncio.Task[Any], then: Callable[[asyncio.Task[Any]], None] | None) -> None:
        self._running.discard(task)
        if then is not None:
            then(task)
        elif not task.cancelled() and (error := task.exception()) is not None:
            self._on_error(task.get_name(), error)
