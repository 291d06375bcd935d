"""Fixed texts that the agent says by itself: greeting, nudge, reprompt. As interruptible as a reply, and remembered."""

from __future__ import annotations

import asyncio
from typing import Protocol

from sipserver.agent.clauses import sentences
from sipserver.agent.iterators import closing
from sipserver.agent.kit import Kit
from sipserver.agent.llm.contract import Message
from sipserver.agent.reply import Answer
from sipserver.agent.saying import Saying


class Speaker(Protocol):
    """Who has the floor on the agent's side: a `Reply` or an `Announcement`. `run` is one task, cut, then cancelled."""

    @property
    def saying(self) -> Saying: ...
    @property
    def busy(self) -> bool: ...
    def cut(self) -> None: ...
    def measure(self, at_ns: int) -> None: ...
    def again(self) -> Speaker: ...
    async def run(self) -> Answer: ...


class Announcement:
    """Loop thread. Says the text at once."""

    def __init__(self, kit: Kit, text: str) -> None:
        self._kit, self._text = kit, text
        self._committed = False
        self.queued = asyncio.Event()
        """All of it was synthesised (or failed): the engines are free for other work."""
        self.saying = kit.saying()

    @property
    def busy(self) -> bool:
        return False

    def cut(self) -> None:
        """Fall silent; what was heard until now is history. Idempotent."""
        self.saying.cut()
        self._commit()

    def measure(self, at_ns: int) -> None:
        """Nobody waited for it: there is no latency to tell."""

    def again(self) -> Announcement:
        return Announcement(self._kit, self._text)

    async def run(self) -> Answer:
        """Returns when all of it was heard. Raises ProviderError when no voice can speak it. Safe to cancel."""
        try:
            for sentence in sentences(self._text):
                async with closing(self._kit.sound(sentence, fixed=True)) as chunks:
                    await self.saying.add(sentence, chunks)
            self.queued.set()
        except asyncio.CancelledError:
            self.cut()
            raise
        finally:
            self.queued.set()
            await self.saying.finished()
            self._commit()
        return Answer()

    def _commit(self) -> None:
        if not self._committed:
            self._committed = True
            self._kit.history.add(Message("assistant", self.saying.heard()))
