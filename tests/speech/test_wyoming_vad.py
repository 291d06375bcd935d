"""Voice activity through shared memory: in order, in time, and whatever happens to the worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest

from sipserver.audio.frame import FRAME_MS, FRAME_SAMPLES, Frame, Samples
from sipserver.speech.peers import Peers
from sipserver.speech.vendors import wyoming_vad
from sipserver.speech.vendors.wyoming_vad import WyomingVad
from sipserver.speech.worker.server import SpeechServer
from tests.fakes.engines import loud
from tests.fakes.speech_host import FakeHost
from tests.fakes.until import until
from tests.servers.speech import SpeechProcess

CHUNK_NS = 32_000_000
FRAME_NS = FRAME_MS * 1_000_000
QUIET = np.full(FRAME_SAMPLES, 100, np.int16)
LOUD = loud(FRAME_MS)


class Ear:
    """A stream with what it was told: (probability, end of the chunk, when it was told), nanoseconds."""

    def __init__(self, vad: WyomingVad) -> None:
        self.told: list[tuple[float, int, int]] = []
        self.stream = vad.stream(self._tell)
        self.heard = 0
        self.began_ns = time.monotonic_ns()

    def _tell(self, probability: float, at_ns: int) -> None:
        self.told.append((probability, at_ns, time.monotonic_ns()))

    def hear(self, samples: Samples) -> None:
        """One frame, stamped as if frames came exactly every 20 ms."""
        self.heard += 1
        self.stream.hear(Frame(samples, self.began_ns + self.heard * FRAME_NS))

    def in_order(self) -> bool:
        """Every chunk was told once, with its own end."""
        ends = [at_ns for _, at_ns, _ in self.told]
        return ends == [self.began_ns + CHUNK_NS * number for number in range(1, len(ends) + 1)]

    @property
    def loud(self) -> list[bool]:
        return [probability > 0.5 for probability, _, _ in self.told]


async def speak(ears: list[Ear], frames: list[Samples]) -> None:
    """In real time, as calls do."""
    began = time.monotonic()
    for number, samples in enumerate(frames):
        for ear in ears:
            ear.hear(samples)
        await asyncio.sleep(max(0.0, began + (number + 1) * FRAME_MS / 1000 - time.monotonic()))


def placed(ear: Ear) -> bool:
    """It has a place in a worker's segment."""
    return ear.stream._link is not None


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[FakeHost]:
    """A worker in this process."""
    host = FakeHost()
    server = SpeechServer(host)
    await server.listen(f"unix://{tmp_path}/speech.sock")
    yield host
    await server.close()
    await host.close()


@pytest.fixture
async def vad(host: FakeHost, tmp_path: Path) -> AsyncIterator[WyomingVad]:
    vad = WyomingVad(Peers([f"unix://{tmp_path}/speech.sock"]))
    yield vad
    await vad.close()


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[list[SpeechProcess]]:
    """Two worker processes without models."""
    processes = [SpeechProcess(tmp_path / name, {}, fake=True) for name in ("one", "two")]
    for process in processes:
        process.start()
    yield processes
    for process in processes:
        process.stop()


async def test_every_chunk_is_told_in_order_with_its_end_from_the_first_frame_on(vad: WyomingVad) -> None:
    ear = Ear(vad)
    await speak([ear], [QUIET] * 16 + [LOUD] * 16 + [QUIET] * 18)
    assert ear.in_order()
    assert 29 <= len(ear.told) <= 31
    assert [place for place, speech in enumerate(ear.loud) if speech] == list(range(10, 20))
    assert vad.stood_in == vad.depth == 0
    ear.stream.close()


async def test_what_was_heard_before_there_was_a_place_is_judged_too(vad: WyomingVad) -> None:
    ear = Ear(vad)
    for _ in range(8):
        ear.hear(LOUD)
    assert ear.told == []
    await until(lambda: placed(ear))
    await speak([ear], [QUIET] * 8)
    assert ear.loud[:5] == [True] * 5
    assert ear.in_order()
    assert vad.stood_in == 0


async def test_closing_gives_the_place_back_and_nothing_is_told_afterwards(vad: WyomingVad, host: FakeHost) -> None:
    ears = [Ear(vad) for _ in range(20)]
    await until(lambda: all(placed(ear) for ear in ears))
    assert host.judge is not None
    assert host.judge.streams == 20
    for ear in ears:
        ear.hear(LOUD)
        ear.hear(LOUD)
        ear.stream.close()
        ear.stream.close()
        ear.hear(LOUD)
    await until(lambda: host.judge is not None and host.judge.streams == 0)
    assert all(ear.told == [] for ear in ears)


async def test_a_burst_of_late_frames_is_no_fault_of_the_worker(vad: WyomingVad) -> None:
    ear = Ear(vad)
    await until(lambda: placed(ear))
    for _ in range(15):
        ear.hear(LOUD)
    await until(lambda: ear.stream._slot.judged == 9)
    ear.hear(QUIET)
    assert ear.loud == [True] * 9
    assert (vad.stood_in, vad.ready) == (0, True)


async def test_a_callback_may_close_its_stream(vad: WyomingVad) -> None:
    ear = Ear(vad)
    ear.stream._on_probability = lambda _probability, _at_ns: ear.stream.close()
    await speak([ear], [LOUD] * 10)
    assert ear.stream.closed


async def test_places_run_out_and_loudness_stands_in(vad: WyomingVad, host: FakeHost) -> None:
    ears = [Ear(vad) for _ in range(64)]
    await until(lambda: all(placed(ear) for ear in ears))
    late = Ear(vad)
    await until(lambda: late.stream.standing_in)
    await speak([late], [QUIET] * 8 + [LOUD] * 8)
    assert late.loud[-3:] == [True] * 3
    assert late.in_order()
    assert vad.depth == 1


async def test_without_any_worker_turns_still_have_ends(tmp_path: Path) -> None:
    vad = WyomingVad(Peers([f"unix://{tmp_path}/none.sock"]))
    ear = Ear(vad)
    await speak([ear], [QUIET] * 16 + [LOUD] * 16 + [QUIET] * 16)
    assert ear.in_order()
    assert ear.loud.index(True) in (9, 10)
    assert not any(ear.loud[21:])
    assert not vad.ready
    await vad.close()


async def test_batches_that_the_model_refuses_are_judged_by_loudness(vad: WyomingVad, host: FakeHost) -> None:
    ear = Ear(vad)
    await until(lambda: placed(ear))
    host.session.failures = 3
    await speak([ear], [LOUD] * 16)
    assert ear.loud == [True] * len(ear.told)
    assert vad.stood_in == 3
    assert ear.in_order()


async def test_many_streams_are_told_in_time(workers: list[SpeechProcess]) -> None:
    vad = WyomingVad(Peers([worker.uri for worker in workers]))
    ears = [Ear(vad) for _ in range(60)]
    await until(lambda: all(placed(ear) for ear in ears))
    for ear in ears:
        ear.began_ns = time.monotonic_ns()
    await speak(ears, ([QUIET] * 8 + [LOUD] * 8) * 4)
    assert all(ear.in_order() and len(ear.told) >= 38 for ear in ears)
    assert all(ear.loud == ears[0].loud for ear in ears if len(ear.told) == len(ears[0].told))
    held = {ear.stream._peer.uri for ear in ears if ear.stream._peer is not None}
    assert held == {worker.uri for worker in workers}, "both workers have their part"
    late_ns = sorted(told_ns - at_ns for ear in ears for _, at_ns, told_ns in ear.told)
    assert late_ns[len(late_ns) // 2] < 2 * FRAME_NS + CHUNK_NS
    await vad.close()


async def test_a_worker_that_is_killed_is_stood_in_for_until_it_is_back(workers: list[SpeechProcess]) -> None:
    worker = workers[0]
    vad = WyomingVad(Peers([worker.uri]))
    ears = [Ear(vad) for _ in range(5)]
    await until(lambda: all(placed(ear) for ear in ears))
    await speak(ears, [LOUD] * 8)
    worker.kill()
    await speak(ears, [QUIET] * 8 + [LOUD] * 8)
    assert all(ear.stream.standing_in for ear in ears)
    assert not vad.ready
    stood_in = vad.stood_in
    assert stood_in >= 5 * 8
    await asyncio.to_thread(worker.start)
    await until(lambda: all(placed(ear) for ear in ears))
    await speak(ears, [QUIET] * 8 + [LOUD] * 16)
    assert vad.ready
    assert vad.depth == 0
    assert vad.stood_in <= stood_in + 5
    assert all(ear.in_order() and len(ear.told) >= 28 for ear in ears)
    assert all(ear.loud[-8:] == [True] * 8 for ear in ears)
    await vad.close()


async def test_the_other_worker_takes_over(workers: list[SpeechProcess]) -> None:
    vad = WyomingVad(Peers([worker.uri for worker in workers]))
    ears = [Ear(vad) for _ in range(6)]
    await until(lambda: all(placed(ear) for ear in ears))
    workers[0].kill()
    await until(lambda: not any(ear.stream.standing_in for ear in ears) and all(placed(ear) for ear in ears))
    await speak(ears, [LOUD] * 16)
    held = {ear.stream._peer.uri for ear in ears if ear.stream._peer is not None}
    assert held == {workers[1].uri}
    assert all(ear.in_order() and ear.loud[-4:] == [True] * 4 for ear in ears)
    await vad.close()


async def test_a_worker_that_stands_still_is_stood_in_for_and_comes_back(workers: list[SpeechProcess]) -> None:
    vad = WyomingVad(Peers([workers[0].uri]))
    ear = Ear(vad)
    await until(lambda: placed(ear))
    await speak([ear], [LOUD] * 4)
    workers[0].pause()
    await speak([ear], [QUIET] * 16 + [LOUD] * 16)
    assert vad.stood_in > 8
    assert ear.stream.standing_in
    assert ear.loud[-1]
    workers[0].go_on()
    await until(lambda: ear.stream._slot.judged > 0)
    stood_in = vad.stood_in
    await speak([ear], [QUIET] * 16)
    assert not ear.stream.standing_in
    assert vad.stood_in - stood_in <= 3
    assert ear.in_order()
    assert len(ear.told) >= 30
    await vad.close()


async def test_a_worker_that_stands_still_for_long_is_left(
    workers: list[SpeechProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wyoming_vad, "MOVE_CHUNKS", 4)
    vad = WyomingVad(Peers([worker.uri for worker in workers]))
    ears = [Ear(vad) for _ in range(4)]
    await until(lambda: all(placed(ear) for ear in ears))
    workers[0].pause()
    await speak(ears, [QUIET] * 30)
    await until(lambda: all(placed(ear) for ear in ears))
    held = {ear.stream._peer.uri for ear in ears if ear.stream._peer is not None}
    assert held == {workers[1].uri}
    await speak(ears, [LOUD] * 8)
    assert all(ear.in_order() and ear.loud[-2:] == [True] * 2 for ear in ears)
    await vad.close()
