"""A person who is called while the agent goes on talking.

Owns that one is called at a time, and what the model has yet to be told about it. Refuses to know how one is called.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sipserver.agent import phrases
from sipserver.agent.options import Fetch
from sipserver.agent.tasks import Tasks

ANSWERED = "answered"


class Summons:
    """Loop thread; nothing blocks. told: called when it is known what came of it, never after the tasks were closed."""

    def __init__(self, fetch: Fetch, tasks: Tasks, told: Callable[[Summons], None]) -> None:
        self._fetch, self._tasks, self._told = fetch, tasks, told
        self._news = ""
        self.under_way = False
        self.answered = False
        self.reason = ""
        self.error: BaseException | None = None
        """What broke while somebody was called; a refusal is none."""

    def begin(self, reason: str) -> bool:
        """Have a person called. False: one is being called already, or is there."""
        if self.under_way or self.answered:
            return False
        self.under_way, self.reason, self._news = True, reason, ""
        self._tasks.start("fetch a person", self._fetched(), self._ended)
        return True

    def news(self) -> str:
        """That nobody comes, for the model, if it was not told yet. It is told now."""
        news, self._news = self._news, ""
        return news

    async def _fetched(self) -> str:
        return await self._fetch(self.reason)

    def _ended(self, task: asyncio.Task[str]) -> None:
        self.under_way = False
        if task.cancelled():
            return
        self.error = task.exception()
        if self.error is None and task.result() == ANSWERED:
            self.answered = True
        elif self.error is None:
            self._news = phrases.nobody_comes(task.result())
        self._told(self)
