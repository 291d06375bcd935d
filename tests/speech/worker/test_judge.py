"""The judge: all streams in one batch, in order, at the right time, whatever the model or a client does."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

import numpy as np
import pytest

from sipserver.errors import ProviderBusy
from sipserver.speech.segment import CHUNK_SAMPLES, VERDICTS
from sipserver.speech.vendors.silero import BACKLOG_CHUNKS, HUSH_AFTER_CHUNKS
from sipserver.speech.worker.judge import Judge
from tests.fakes.engines import loud
from tests.fakes.speech_host import LoudSession
from tests.fakes.until import until

CHUNK_MS = 32


@pytest.fixture
def session() -> LoudSession:
    return LoudSession()


@pytest.fixture
async def judge(session: LoudSession) -> AsyncIterator[Judge]:
    judge = Judge(session, 8)
    yield judge
    await judge.close()


def ignore(_started: bool, _at_ms: int) -> None: ...


async def test_streams_share_batches_and_each_gets_its_own_verdict(judge: Judge, session: LoudSession) -> None:
    places = [judge.open(ignore) for _ in range(6)]
    slots = [judge.writer(place) for place in places]
    for number, slot in enumerate(slots):
        slot.write(loud(CHUNK_MS) if number % 2 else np.full(CHUNK_SAMPLES, 100, np.int16))
    await until(lambda: all(slot.judged == 1 for slot in slots))
    assert [slot.probability(0) > 0.5 for slot in slots] == [False, True] * 3
    assert sum(session.batches) == 6
    assert len(session.batches) < 6


async def test_a_stream_is_judged_chunk_by_chunk_over_the_end_of_its_ring(judge: Judge) -> None:
    place = judge.open(ignore)
    slot = judge.writer(place)
    told = []
    for number in range(80):
        slot.write(loud(CHUNK_MS) if number % 3 == 0 else np.full(CHUNK_SAMPLES, 100, np.int16))
        await until(lambda number=number: slot.judged == number + 1)  # type: ignore[misc]
        told.append(slot.probability(number) > 0.5)
    assert told == [number % 3 == 0 for number in range(80)]
    assert judge.late == 0


async def test_a_client_that_comes_too_late_is_told_what_was_left_out(judge: Judge) -> None:
    place = judge.open(ignore)
    slot = judge.writer(place)
    slot.write(loud(25 * CHUNK_MS))
    await until(lambda: slot.judged == 25)
    told = [slot.probability(number) for number in range(25)]
    assert [math.isnan(value) for value in told] == [True] * (25 - BACKLOG_CHUNKS) + [False] * BACKLOG_CHUNKS
    assert judge.late == 25 - BACKLOG_CHUNKS


async def test_hush_after_silence_is_not_shown_to_the_model(judge: Judge, session: LoudSession) -> None:
    slot = judge.writer(judge.open(ignore))
    for number in range(HUSH_AFTER_CHUNKS + 5):
        slot.write(np.full(CHUNK_SAMPLES, 10, np.int16))
        await until(lambda number=number: slot.judged == number + 1)  # type: ignore[misc]
    assert (judge.judged, judge.hushed) == (HUSH_AFTER_CHUNKS, 5)
    assert slot.probability(HUSH_AFTER_CHUNKS) == 0
    slot.write(loud(CHUNK_MS))
    await until(lambda: slot.judged == HUSH_AFTER_CHUNKS + 6)
    assert slot.probability(HUSH_AFTER_CHUNKS + 5) > 0.9


async def test_a_batch_that_fails_is_unjudged_and_the_next_one_works(judge: Judge, session: LoudSession) -> None:
    session.failures = 1
    slot = judge.writer(judge.open(ignore))
    slot.write(loud(CHUNK_MS))
    await until(lambda: slot.judged == 1)
    slot.write(loud(CHUNK_MS))
    await until(lambda: slot.judged == 2)
    assert math.isnan(slot.probability(0))
    assert slot.probability(1) > 0.9
    assert judge.failed == 1


async def test_voices_start_and_stop_with_their_times(judge: Judge) -> None:
    told: list[tuple[bool, int]] = []
    slot = judge.writer(judge.open(lambda started, at_ms: told.append((started, at_ms))))
    quiet = np.full(CHUNK_SAMPLES, 100, np.int16)
    for number, chunk in enumerate([quiet, quiet, loud(CHUNK_MS), loud(CHUNK_MS), quiet, quiet, quiet, quiet]):
        slot.write(chunk)
        await until(lambda number=number: slot.judged == number + 1)  # type: ignore[misc]
    await until(lambda: len(told) == 2)
    assert told == [(True, 2 * CHUNK_MS), (False, 4 * CHUNK_MS)]


async def test_places_run_out_and_come_back_clean(judge: Judge) -> None:
    places = [judge.open(ignore) for _ in range(8)]
    with pytest.raises(ProviderBusy):
        judge.open(ignore)
    slot = judge.writer(places[3])
    slot.write(loud(CHUNK_MS))
    await until(lambda: slot.judged == 1)
    judge.release(places[3])
    assert judge.streams == 7

    again: list[int] = []

    def taken() -> bool:
        try:
            again.append(judge.open(ignore))
        except ProviderBusy:
            return False
        return True

    await until(taken)
    assert again == [places[3]]
    fresh = judge.writer(again[0])
    assert (fresh.judged, int(judge.segment.written[again[0]])) == (0, 0)


async def test_the_thread_sleeps_while_nobody_is_there(judge: Judge, session: LoudSession) -> None:
    place = judge.open(ignore)
    slot = judge.writer(place)
    judge.release(place)
    await until(lambda: not judge._awake.is_set())
    slot.write(loud(CHUNK_MS))
    again = judge.writer(judge.open(ignore))
    again.write(loud(CHUNK_MS))
    await until(lambda: again.judged == 1)
    assert sum(session.batches) == 1


def test_the_verdicts_outlast_the_patience_of_clients() -> None:
    assert VERDICTS >= 2 * BACKLOG_CHUNKS
