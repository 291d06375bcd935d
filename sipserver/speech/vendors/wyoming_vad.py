"""Voice activity by the speech workers of this machine: sound goes and probabilities come through shared memory.

Owns a stream's life: its place in a worker's segment, the end times of its chunks, and what happens while no worker
judges it. Then chunks are judged by loudness, so that turns go on being taken, and the stream moves to a worker that
works, the restarted one or another. A call sticks to one worker otherwise.

Nothing is sent while sound flows: `hear` writes 20 ms into the ring and reads what was judged meanwhile, which is told
one frame (20 ms) late therefore, with the exact time of its chunk.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque

from wyoming.audio import AudioStart
from wyoming.event import Event

from sipserver.audio.frame import RATE_HZ, Frame
from sipserver.errors import ProviderError
from sipserver.log import logger
from sipserver.speech import wire
from sipserver.speech.contract import OnProbability
from sipserver.speech.loudness import Loudness
from sipserver.speech.peers import Link, Peer, Peers, Unreachable
from sipserver.speech.segment import CHUNK_SAMPLES, SLOT_BYTES, Slot, open_segment

PATIENCE_NS = 250_000_000
"""A worker may take this long before loudness stands in."""
RECOVERED_CHUNKS = 3
"""A worker that has come as near as this (96 ms) is waited for again."""
MOVE_CHUNKS = 64
"""A stream that was stood in for this long (2 s) goes to another worker, if there is one that works."""
ANSWER_S = 2.0
RETRY_S = 0.2


class SharedStream:
    """Satisfies `contract.VadStream`. Loop thread."""

    def __init__(self, vad: WyomingVad, on_probability: OnProbability) -> None:
        self.closed = False
        self._vad, self._on_probability = vad, on_probability
        self._slot = Slot()
        self._peer: Peer | None = None
        self._link: Link | None = None
        self._lost = False
        self._first = 0
        self._complete = 0
        self._told = 0
        self._waiting: deque[tuple[int, int]] = deque()
        """Chunks not told yet: when they ended, and when they were written (monotonic nanoseconds)."""
        self._loudness = Loudness()
        self._stood_in = 0

    @property
    def standing_in(self) -> bool:
        """Loudness judges, not a worker."""
        return self._lost or self._stood_in > 0

    def hear(self, frame: Frame) -> None:
        if self.closed:
            return
        slot = self._slot
        slot.write(frame.samples)
        complete = self._first + slot.written // CHUNK_SAMPLES
        if complete > self._complete:
            beyond = slot.written % CHUNK_SAMPLES
            self._complete = complete
            self._waiting.append((frame.at_ns - beyond * 1_000_000_000 // RATE_HZ, time.monotonic_ns()))
        if self._waiting:
            self._tell()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._waiting.clear()
            self._vad.left(self)

    def _tell(self) -> None:
        """Hand on what was judged, in order; stand in for a worker that is gone or too late."""
        slot, judged = self._slot, self._first + self._slot.judged
        slot.fence()
        if self._stood_in and judged + RECOVERED_CHUNKS >= self._told:
            self._stood_in = 0
        while self._waiting:
            if self._told < judged:
                probability = slot.probability(self._told - self._first)
                if math.isnan(probability):
                    probability = self._by_loudness()
            elif self._lost or self._stood_in or time.monotonic_ns() - self._waiting[0][1] > PATIENCE_NS:
                self._worker_is_late()
                probability = self._by_loudness()
            else:
                return
            self._told += 1
            self._on_probability(probability, self._waiting.popleft()[0])

    def _by_loudness(self) -> float:
        self._vad.stood_in += 1
        start = (self._told - self._first) * CHUNK_SAMPLES
        return self._loudness.judge(self._slot.read(start, start + CHUNK_SAMPLES))

    def _worker_is_late(self) -> None:
        self._stood_in += 1
        if self._peer is None or self._link is None:
            return
        self._peer.failed("sound is not judged in time")
        other = self._vad.peers.order()[0]
        if self._stood_in > MOVE_CHUNKS and other.well and other is not self._peer:
            link = self._link
            self._leave()
            link.writer.transport.abort()

    # --- the way to a worker ------------------------------------------------------------------------------------------

    async def attend(self) -> None:
        """Find a worker and stay with it; when it is gone, find the next one. Runs until it is cancelled."""
        while True:
            peer = self._vad.peers.order()[0]
            try:
                async with peer.link(self._vad.name) as link:
                    await self._follow(peer, link)
            except (ProviderError, TimeoutError, OSError, ValueError, KeyError) as problem:
                if not isinstance(problem, Unreachable):
                    peer.failed(str(problem) or "no place in shared memory in time")
            finally:
                self._leave()
            if not self._vad.peers.order()[0].well:
                await asyncio.sleep(RETRY_S)

    async def _follow(self, peer: Peer, link: Link) -> None:
        """Ask for a place, move in, stay until the connection ends (Unreachable)."""
        start = AudioStart(RATE_HZ, 2, 1).event()
        start.data["shared"] = True
        async with asyncio.timeout(ANSWER_S):
            await link.write(start)
            while (event := await link.read()).type != wire.SEGMENT:
                continue
        peer.works()
        memory = self._vad.mapped(peer, event)
        self._move(Slot(memory, int(event.data["slot"]) * SLOT_BYTES))
        self._peer, self._link, self._lost = peer, link, False
        while True:
            await link.read()

    def _leave(self) -> None:
        """The worker will not judge this stream any more. Its slot must not be written from now on."""
        self._lost = True
        if self._link is not None:
            self._peer = self._link = None
            self._stood_in = 0
            self._move(Slot())

    def _move(self, slot: Slot) -> None:
        """Go on in another ring with what was not told yet."""
        old = self._slot
        start = (self._told - self._first) * CHUNK_SAMPLES
        slot.write(old.read(start, old.written))
        self._slot, self._first = slot, self._told


class WyomingVad:
    """Satisfies `contract.Vad`. stood_in: chunks that loudness judged because no worker did."""

    name = "silero"

    def __init__(self, peers: Peers) -> None:
        self.peers = peers
        self.stood_in = 0
        self._log = logger("speech", engine=self.name)
        self._tasks: dict[SharedStream, asyncio.Task[None]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._segments: dict[Peer, tuple[str, memoryview]] = {}

    @property
    def depth(self) -> int:
        """Streams that loudness judges now."""
        return sum(stream.standing_in for stream in self._tasks)

    @property
    def ready(self) -> bool:
        return self.peers.ready

    def stream(self, on_probability: OnProbability) -> SharedStream:
        stream = SharedStream(self, on_probability)
        self._tasks[stream] = asyncio.create_task(stream.attend(), name="voice activity stream")
        return stream

    async def close(self) -> None:
        for stream in list(self._tasks):
            stream.close()
        await asyncio.gather(*self._leaving, return_exceptions=True)

    def left(self, stream: SharedStream) -> None:
        """A stream was closed."""
        task = self._tasks.pop(stream)
        self._leaving.add(task)
        task.add_done_callback(self._gone)
        task.cancel()

    def mapped(self, peer: Peer, event: Event) -> memoryview:
        """The segment that an `audio-segment` names; mapped once for all streams. Raises OSError, ValueError."""
        name = str(event.data["name"])
        known = self._segments.get(peer)
        if known is None or known[0] != name:
            known = self._segments[peer] = (name, open_segment(str(event.data["path"]), int(event.data["slots"])))
        return known[1]

    def _gone(self, task: asyncio.Task[None]) -> None:
        self._leaving.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            self._log.error("a voice activity stream broke", exc_info=problem)
