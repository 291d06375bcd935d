"""The bounded work queue that local engines share: jobs wait on the loop, run on the engine's own threads.

Owns order (speculative jobs yield), batching, deadlines and what is dropped when it is full. All of its state belongs
to the loop, so there is no lock; threads only take a batch from their own inbox and post the outcome back. Refuses to
know what a job is.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from sipserver import log
from sipserver.errors import InternalError, ProviderBusy, ProviderError, ProviderTimeout
from sipserver.speech.quiet import yield_to_sound

Job = TypeVar("Job")
Result = TypeVar("Result")

CLOSE_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Done(Generic[Result]):
    """queued_ms: waited for a thread. took_ms: worked, alone or as a part of a batch."""

    value: Result
    queued_ms: int
    took_ms: int


@dataclass(slots=True, eq=False)
class _Entry(Generic[Job, Result]):
    job: Job
    future: asyncio.Future[Done[Result]]
    speculative: bool
    submitted_at: float
    deadline: asyncio.TimerHandle | None = None


@dataclass(frozen=True, slots=True)
class _Outcome(Generic[Result]):
    """What a thread made of a batch, and when (monotonic seconds)."""

    results: Sequence[Result]
    error: ProviderError | None
    started_at: float
    ended_at: float


class _Worker(Generic[Job, Result]):
    """One thread. It ends when it finds None in its inbox; `ended` resolves on the loop then."""

    def __init__(self, name: str, run: Callable[[_Worker[Job, Result], list[_Entry[Job, Result]]], None]) -> None:
        self.inbox: queue.SimpleQueue[list[_Entry[Job, Result]] | None] = queue.SimpleQueue()
        self._run = run
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self.thread = threading.Thread(target=self._work, name=name, daemon=True)
        self.thread.start()

    def _work(self) -> None:
        yield_to_sound()
        try:
            while (batch := self.inbox.get()) is not None:
                self._run(self, batch)
                del batch
        finally:
            _post(self._loop, self._end)

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


class WorkQueue(Generic[Job, Result]):
    """`work` gets 1 to `batch` jobs that are `alike` and returns as many results; it runs on one of `threads` threads.

    Create, use and close on one loop. A job that is cancelled or too late before it starts is dropped; one that runs
    goes on to its end, unheard. When `bound` jobs wait, a new one pushes out the youngest speculative one, or is
    refused. A ProviderError out of `work` reaches every job of its batch; any other exception does so as ProviderError.
    """

    def __init__(
        self,
        engine: str,
        work: Callable[[Sequence[Job]], Sequence[Result]],
        *,
        threads: int,
        bound: int,
        timeout_s: float,
        batch: int = 1,
        alike: Callable[[Job, Job], bool] = lambda _first, _other: True,
    ) -> None:
        self.refused = self.timed_out = self.failed = self.finished = 0
        self._engine, self._work, self._alike = engine, work, alike
        self._bound, self._timeout_s, self._batch = bound, timeout_s, batch
        self._loop = asyncio.get_running_loop()
        self._log = log.logger("speech", engine=engine)
        self._urgent: deque[_Entry[Job, Result]] = deque()
        self._speculative: deque[_Entry[Job, Result]] = deque()
        self._running: set[_Entry[Job, Result]] = set()
        self._closed = False
        self._workers = [_Worker(f"{engine}-{number}", self._run) for number in range(threads)]
        self._idle = list(self._workers)

    @property
    def depth(self) -> int:
        """Jobs that wait for a thread."""
        return sum(not entry.future.done() for waiting in (self._urgent, self._speculative) for entry in waiting)

    @property
    def running(self) -> int:
        """Jobs that a thread works on, the abandoned ones included."""
        return len(self._running)

    def submit(self, job: Job, *, speculative: bool = False) -> asyncio.Future[Done[Result]]:
        """Queue a job. Await the future or cancel it. Raises ProviderBusy at once when there is no room.

        The future raises ProviderTimeout `timeout_s` after this call, and ProviderError if the engine failed.
        """
        if self._closed:
            raise ProviderBusy(self._engine, "it is being closed")
        if self.depth >= self._bound and not self._idle:
            self._make_room(speculative)
        entry: _Entry[Job, Result] = _Entry(job, self._loop.create_future(), speculative, time.monotonic())
        entry.deadline = self._loop.call_later(self._timeout_s, self._too_late, entry)
        entry.future.add_done_callback(lambda _future: self._settled(entry))
        (self._speculative if speculative else self._urgent).append(entry)
        self._dispatch()
        return entry.future

    async def close(self) -> None:
        """Refuse what waits, let running work end, join the threads. Work that hangs is left to its daemon thread."""
        if self._closed:
            return
        self._closed = True
        for entry in [*self._urgent, *self._speculative]:
            if not entry.future.done():
                entry.future.set_exception(ProviderBusy(self._engine, "it is being closed"))
        for worker in self._workers:
            worker.inbox.put(None)
        _, hanging = await asyncio.wait([worker.ended for worker in self._workers], timeout=CLOSE_TIMEOUT_S)
        if hanging:
            self._log.warning("speech.close_timeout", threads=len(hanging))
        for worker in self._workers:
            if worker.ended.done():
                worker.thread.join()

    def _make_room(self, speculative: bool) -> None:
        self.refused += 1
        guesses = [entry for entry in self._speculative if not entry.future.done()]
        if speculative or not guesses:
            raise ProviderBusy(self._engine, f"{self.depth} jobs wait already")
        guesses[-1].future.set_exception(ProviderBusy(self._engine, "speculative work made room"))

    def _dispatch(self) -> None:
        while self._idle and not self._closed and (batch := self._next_batch()):
            self._running.update(batch)
            self._idle.pop().inbox.put(batch)

    def _next_batch(self) -> list[_Entry[Job, Result]]:
        """The oldest urgent job, or else the oldest speculative one, and those behind it that are like it."""
        batch: list[_Entry[Job, Result]] = []
        for waiting in (self._urgent, self._speculative):
            for entry in list(waiting):
                if len(batch) == self._batch:
                    return batch
                if entry.future.done():
                    continue
                if not batch or self._alike(batch[0].job, entry.job):
                    waiting.remove(entry)
                    batch.append(entry)
        return batch

    def _run(self, worker: _Worker[Job, Result], batch: list[_Entry[Job, Result]]) -> None:
        """Worker thread."""
        started_at = time.monotonic()
        results: Sequence[Result] = ()
        error: ProviderError | None = None
        try:
            results = self._work([entry.job for entry in batch])
            if len(results) != len(batch):
                raise InternalError(f"{len(batch)} jobs gave {len(results)} results")
        except ProviderError as problem:
            error = problem
        except Exception as problem:  # whatever an engine raises must reach the callers, not end the thread
            error = ProviderError(self._engine, f"{type(problem).__name__}: {problem}")
            error.__cause__ = problem
        outcome = _Outcome(results, error, started_at, time.monotonic())
        _post(self._loop, self._finish, worker, batch, outcome)

    def _finish(
        self, worker: _Worker[Job, Result], batch: list[_Entry[Job, Result]], outcome: _Outcome[Result]
    ) -> None:
        self._running.difference_update(batch)
        self._idle.append(worker)
        if outcome.error:
            self.failed += len(batch)
            self._log.error("speech.work_failed", error=outcome.error.reason, exc_info=outcome.error.__cause__)
        took_ms = round((outcome.ended_at - outcome.started_at) * 1000)
        for number, entry in enumerate(batch):
            if entry.future.done():
                continue
            if outcome.error:
                entry.future.set_exception(outcome.error)
            else:
                self.finished += 1
                queued_ms = round((outcome.started_at - entry.submitted_at) * 1000)
                entry.future.set_result(Done(outcome.results[number], queued_ms, took_ms))
        self._dispatch()

    def _too_late(self, entry: _Entry[Job, Result]) -> None:
        if not entry.future.done():
            self.timed_out += 1
            entry.future.set_exception(ProviderTimeout(self._engine, f"no answer within {self._timeout_s:g} s"))

    def _settled(self, entry: _Entry[Job, Result]) -> None:
        """The future is done, cancelled or too late: the job must not start any more."""
        if entry.deadline:
            entry.deadline.cancel()
        waiting = self._speculative if entry.speculative else self._urgent
        if entry in waiting:
            waiting.remove(entry)


def _post(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *arguments: object) -> None:
    """Hand over to the loop; nobody is left to tell when it is closed."""
    try:
        loop.call_soon_threadsafe(callback, *arguments)
    except RuntimeError:
        return
