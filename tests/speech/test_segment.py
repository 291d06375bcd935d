"""The ring of a stream and the segment that several processes map."""

from __future__ import annotations

import fcntl
import math
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sipserver.audio.frame import Samples
from sipserver.speech.segment import RING_SAMPLES, SLOT_BYTES, UNJUDGED, VERDICTS, Segment, Slot, open_segment

SLOTS = 4


@pytest.fixture
def segment() -> Iterator[Segment]:
    segment = Segment(SLOTS)
    yield segment
    segment.close()


def ramp(start: int, count: int) -> Samples:
    return (np.arange(start, start + count) % 30_000).astype(np.int16)


def test_what_one_side_writes_the_other_reads(segment: Segment) -> None:
    memory = open_segment(segment.path, SLOTS)
    slot = Slot(memory, 2 * SLOT_BYTES)
    slot.write(ramp(0, 320))
    slot.write(ramp(320, 320))
    assert segment.written.tolist() == [0, 0, 640, 0]
    np.testing.assert_array_equal(segment.sound[2, :640], ramp(0, 640))
    assert not segment.sound[[0, 1, 3]].any()
    segment.verdicts[2, 5] = 0.25
    segment.verdicts[2, 6] = UNJUDGED
    segment.judged[2] = VERDICTS + 7
    assert slot.judged == VERDICTS + 7
    assert slot.probability(VERDICTS + 5) == 0.25
    assert math.isnan(slot.probability(VERDICTS + 6))


def test_the_ring_turns_and_keeps_the_newest(segment: Segment) -> None:
    slot = segment.slot(0)
    for start in range(0, 3 * RING_SAMPLES, 320):
        slot.write(ramp(start, 320))
    written = int(segment.written[0])
    assert written == slot.written >= 3 * RING_SAMPLES
    np.testing.assert_array_equal(slot.read(written - 5000, written), ramp(written - 5000, 5000))


def test_a_private_ring_needs_no_segment() -> None:
    slot = Slot()
    slot.write(ramp(0, 320))
    assert (slot.written, slot.judged) == (320, 0)
    np.testing.assert_array_equal(slot.read(100, 320), ramp(100, 220))


def test_a_wiped_slot_begins_with_silence(segment: Segment) -> None:
    segment.slot(1).write(ramp(1, 320))
    segment.judged[1] = 5
    segment.wipe(1)
    assert (segment.written[1], segment.judged[1], segment.sound[1].any()) == (0, 0, False)


def test_counts_stand_on_cache_lines_of_their_own(segment: Segment) -> None:
    addresses = [array.__array_interface__["data"][0] for array in (segment.written, segment.judged)]
    assert addresses[1] - addresses[0] >= 64
    assert SLOT_BYTES % 64 == addresses[0] % 64 == 0


def test_nobody_can_shrink_it_under_the_others(segment: Segment) -> None:
    with pytest.raises(PermissionError):
        os.truncate(segment.path, 0)


def test_what_is_no_segment_is_not_mapped(segment: Segment, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 slots"):
        open_segment(segment.path, 3)
    descriptor = os.memfd_create("other", os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, SLOT_BYTES)
        with pytest.raises(ValueError, match="shrink"):
            open_segment(f"/proc/self/fd/{descriptor}", 1)
        assert not fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    finally:
        os.close(descriptor)
    with pytest.raises(OSError, match="none"):
        open_segment(str(tmp_path / "none"), 1)


def test_what_is_mapped_outlives_the_segment() -> None:
    segment = Segment(1)
    memory = open_segment(segment.path, 1)
    assert isinstance(memory.obj, mmap.mmap)
    segment.close()
    slot = Slot(memory)
    slot.write(ramp(0, 320))
    assert slot.written == 320
