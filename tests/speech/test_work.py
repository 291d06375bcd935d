"""The work queue: order, batches, bounds, deadlines, cancellation, and threads that end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import pytest

from sipserver.errors import ProviderBusy, ProviderError, ProviderRejected, ProviderTimeout
from sipserver.speech import work
from sipserver.speech.work import WorkQueue


class Bench:
    """Work that a test holds back and lets go. batches: what the threads were given."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)

    def __call__(self, jobs: Sequence[str]) -> list[str]:
        self.batches.append(list(jobs))
        self.begun.release()
        assert self.go_on.acquire(timeout=10)
        return [job.upper() for job in jobs]

    async def one_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.acquire, timeout=10)

    def let_go(self, batches: int) -> None:
        for _ in range(batches):
            self.go_on.release()


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
async def queue(bench: Bench) -> AsyncIterator[WorkQueue[str, str]]:
    queue = WorkQueue("engine", bench, threads=1, bound=3, timeout_s=30)
    yield queue
    bench.let_go(100)
    await queue.close()


async def test_a_job_runs_on_a_thread_of_the_engine() -> None:
    def where(jobs: Sequence[int]) -> list[str]:
        return [threading.current_thread().name for _ in jobs]

    queue = WorkQueue("ear", where, threads=1, bound=1, timeout_s=10)
    done = await queue.submit(1)
    assert done.value == "ear-0"
    assert done.queued_ms >= 0 <= done.took_ms
    assert (queue.depth, queue.running, queue.finished) == (0, 0, 1)
    await queue.close()


async def test_speculative_work_yields(queue: WorkQueue[str, str], bench: Bench) -> None:
    futures = [queue.submit("first")]
    await bench.one_begun()
    futures.append(queue.submit("guess", speculative=True))
    futures.append(queue.submit("sure"))
    assert (queue.depth, queue.running) == (2, 1)
    bench.let_go(3)
    assert [done.value for done in await asyncio.gather(*futures)] == ["FIRST", "GUESS", "SURE"]
    assert bench.batches == [["first"], ["sure"], ["guess"]]


async def test_a_full_queue_refuses(queue: WorkQueue[str, str], bench: Bench) -> None:
    for job in "abcd":
        queue.submit(job)
    with pytest.raises(ProviderBusy):
        queue.submit("e")
    with pytest.raises(ProviderBusy):
        queue.submit("f", speculative=True)
    assert queue.refused == 2
    assert queue.depth == 3


async def test_sure_work_takes_the_place_of_a_guess(queue: WorkQueue[str, str], bench: Bench) -> None:
    queue.submit("a")
    queue.submit("b")
    old, young = queue.submit("old", speculative=True), queue.submit("young", speculative=True)
    sure = queue.submit("sure")
    with pytest.raises(ProviderBusy, match="made room"):
        await young
    bench.let_go(4)
    assert (await sure).value == "SURE"
    assert (await old).value == "OLD"


async def test_cancelled_work_never_begins(queue: WorkQueue[str, str], bench: Bench) -> None:
    first = queue.submit("a")
    await bench.one_begun()
    unwanted, wanted = queue.submit("b"), queue.submit("c")
    unwanted.cancel()
    bench.let_go(2)
    assert [(await first).value, (await wanted).value] == ["A", "C"]
    assert bench.batches == [["a"], ["c"]]
    assert queue.depth == 0


async def test_work_that_is_cancelled_while_it_runs_ends_unheard(queue: WorkQueue[str, str], bench: Bench) -> None:
    first = queue.submit("a")
    await bench.one_begun()
    first.cancel()
    second = queue.submit("b")
    assert queue.running == 1
    bench.let_go(2)
    assert (await second).value == "B"
    assert queue.finished == 1


async def test_a_deadline_holds_waiting_and_running(bench: Bench) -> None:
    queue = WorkQueue("engine", bench, threads=1, bound=3, timeout_s=0.5)
    running = queue.submit("a")
    await bench.one_begun()
    waiting = queue.submit("b")
    for future in (running, waiting):
        with pytest.raises(ProviderTimeout, match=r"0\.5 s"):
            await future
    assert (queue.depth, queue.running, queue.timed_out) == (0, 1, 2)
    bench.let_go(1)
    await queue.close()
    assert bench.batches == [["a"]]


async def test_like_jobs_share_a_batch(bench: Bench) -> None:
    queue = WorkQueue("engine", bench, threads=1, bound=9, timeout_s=30, batch=3, alike=lambda a, b: len(a) == len(b))
    futures = [queue.submit("x")]
    await bench.one_begun()
    futures += [queue.submit(job) for job in ("aa", "b", "cc", "dd", "ee")]
    futures.append(queue.submit("ff", speculative=True))
    bench.let_go(9)
    assert [done.value for done in await asyncio.gather(*futures)] == ["X", "AA", "B", "CC", "DD", "EE", "FF"]
    assert bench.batches == [["x"], ["aa", "cc", "dd"], ["b"], ["ee", "ff"]]
    await queue.close()


async def test_threads_work_side_by_side(bench: Bench) -> None:
    queue = WorkQueue("engine", bench, threads=2, bound=1, timeout_s=30)
    futures = [queue.submit("a"), queue.submit("b")]
    await bench.one_begun()
    await bench.one_begun()
    assert queue.running == 2
    bench.let_go(2)
    await asyncio.gather(*futures)
    await queue.close()


@pytest.mark.parametrize(
    ("raised", "expected"),
    [(ProviderRejected("engine", "no"), ProviderRejected), (ValueError("odd"), ProviderError)],
)
async def test_what_the_engine_raises_reaches_all_of_its_batch(raised: Exception, expected: type[Exception]) -> None:
    def fail(_jobs: Sequence[str]) -> list[str]:
        raise raised

    queue = WorkQueue("engine", fail, threads=1, bound=3, timeout_s=10, batch=2)
    results = await asyncio.gather(*[queue.submit(job) for job in "abc"], return_exceptions=True)
    assert [type(result) for result in results] == [expected] * 3
    assert queue.failed == 3
    await queue.close()


async def test_too_few_results_are_a_failure() -> None:
    queue: WorkQueue[str, str] = WorkQueue("engine", lambda _jobs: [], threads=1, bound=1, timeout_s=10)
    with pytest.raises(ProviderError, match="1 jobs gave 0 results"):
        await queue.submit("a")
    await queue.close()


async def test_closing_refuses_what_waits_and_lets_what_runs_end(bench: Bench) -> None:
    queue = WorkQueue("engine", bench, threads=1, bound=3, timeout_s=30)
    running = queue.submit("a")
    await bench.one_begun()
    waiting = queue.submit("b")
    bench.let_go(1)
    await queue.close()
    await queue.close()
    assert (await running).value == "A"
    with pytest.raises(ProviderBusy, match="closed"):
        await waiting
    with pytest.raises(ProviderBusy, match="closed"):
        queue.submit("c")


async def test_closing_does_not_wait_for_work_that_hangs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "CLOSE_TIMEOUT_S", 0.02)
    queue = WorkQueue("engine", bench, threads=1, bound=3, timeout_s=30)
    queue.submit("a")
    await bench.one_begun()
    await queue.close()
    bench.let_go(1)


def test_a_thread_outlives_its_loop_in_peace(bench: Bench) -> None:
    async def begin_and_leave() -> None:
        queue = WorkQueue("engine", bench, threads=1, bound=3, timeout_s=30)
        queue.submit("a")
        await bench.one_begun()
        queue._workers[0].inbox.put(None)

    asyncio.run(begin_and_leave())
    bench.let_go(1)
