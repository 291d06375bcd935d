"""Speech-to-text with the real work queue behind it, and work that a test holds back."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from sipserver.audio.frame import RATE_HZ, Samples
from sipserver.speech.contract import SttCapabilities, Transcription
from sipserver.speech.work import WorkQueue
from tests.fakes.until import until


class QueuedStt:
    """One thread, two places in the queue. Answers with the milliseconds of the sound. worked: in which order."""

    def __init__(self, name: str = "whisper", *, timeout_s: float = 10) -> None:
        self.name = name
        self.capabilities = SttCapabilities(frozenset({"en"}), False, True)
        self.worked: list[int] = []
        self._go_on = threading.Semaphore(0)
        self.queue: WorkQueue[int, str] = WorkQueue(name, self._work, threads=1, bound=2, timeout_s=timeout_s)

    async def transcribe(self, samples: Samples, *, language: str = "auto", speculative: bool = False) -> Transcription:
        done = await self.queue.submit(len(samples) * 1000 // RATE_HZ, speculative=speculative)
        return Transcription(done.value, "en", -0.25, done.queued_ms, done.took_ms)

    def let_go(self, jobs: int = 1) -> None:
        for _ in range(jobs):
            self._go_on.release()

    async def holds(self, *, running: int, waiting: int) -> None:
        """Wait until so many jobs are where they should be."""
        await until(lambda: (self.queue.running, self.queue.depth) == (running, waiting), f"{running} + {waiting} jobs")

    async def close(self) -> None:
        self.let_go(100)
        await self.queue.close()

    def _work(self, jobs: Sequence[int]) -> list[str]:
        assert self._go_on.acquire(timeout=20)
        self.worked += jobs
        return [f"{job} ms" for job in jobs]
