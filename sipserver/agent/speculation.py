"""The reply that is prepared while the caller is silent for a moment and may not have finished.

It is kept if the turn ends without another sound, so that its first clause is there already, and discarded if the
caller goes on. At most one at a time. Owns the decision and its events; the reply itself keeps everything back.
"""

from __future__ import annotations

import asyncio

from sipserver.agent.reply import Answer, Reply
from sipserver.errors import ProviderError
from sipserver.events import Emit
from sipserver.events import Speculation as SpeculationEvent


class Speculation:
    """Loop thread; nothing blocks."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._held: tuple[Reply, asyncio.Task[Answer]] | None = None

    def holds(self, reply: object) -> bool:
        return self._held is not None and self._held[0] is reply

    @property
    def active(self) -> bool:
        return self._held is not None

    def begin(self, reply: Reply, task: asyncio.Task[Answer]) -> None:
        self.discard("replaced")
        self._held = reply, task
        self._emit(SpeculationEvent("started"))

    def keep(self) -> tuple[Reply, asyncio.Task[Answer]] | None:
        """The held reply, now the caller's to release; None if there is none or its engines failed."""
        held, self._held = self._held, None
        if held is None:
            return None
        task = held[1]
        if task.done() and (task.cancelled() or isinstance(task.exception(), ProviderError)):
            self._emit(SpeculationEvent("discarded", "failed"))
            return None
        self._emit(SpeculationEvent("kept"))
        return held

    def discard(self, reason: str) -> None:
        """Cancel the model, the voice and the transcript. Nothing of it was heard or had an effect."""
        held, self._held = self._held, None
        if held is not None:
            reply, task = held
            reply.cut()
            task.cancel()
            self._emit(SpeculationEvent("discarded", reason))
