"""An agent's conversation that a test leads."""

from __future__ import annotations

import asyncio
from typing import Any

from sipserver.agent.options import Outcome
from sipserver.audio.frame import Frame


class FakeTalk:
    """heard: frames. The conversation goes on until the test sets `outcome` or its exception."""

    def __init__(self, **given: Any) -> None:
        self.given = given
        self.heard: list[Frame] = []
        self.typed = ""
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.cancelled = False

    def hear(self, frame: Frame) -> None:
        self.heard.append(frame)

    def digit(self, digit: str) -> None:
        self.typed += digit

    async def run(self) -> Outcome:
        try:
            return await self.outcome
        except asyncio.CancelledError:
            self.cancelled = True
            raise


class FakeConverse:
    """Makes conversations and keeps them."""

    def __init__(self) -> None:
        self.talks: list[FakeTalk] = []

    def __call__(self, **given: Any) -> FakeTalk:
        self.talks.append(FakeTalk(**given))
        return self.talks[-1]
