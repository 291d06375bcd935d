from __future__ import annotations

import os

import pjsua2 as pj
import pytest
from structlog.testing import capture_logs

from sipserver.audio.frame import FRAME_BYTES
from sipserver.sip import pcm


class WithMethods:
    """What PJSIP 2.16 adds to a vector, around this one's bytes."""

    def __init__(self) -> None:
        self.payload = b""

    def copy_to_bytearray(self, target: bytearray) -> None:
        target[:] = self.payload

    def assign_from_bytes(self, payload: bytes) -> None:
        self.payload = payload


class FrameWithMethods:
    def __init__(self) -> None:
        self.buf = WithMethods()
        self.size = FRAME_BYTES


@pytest.mark.parametrize("way", [pcm.POINTER, pcm.SLOW])
def test_each_way_copies_a_frame_unchanged(way: pcm.PcmCopy) -> None:
    payload = os.urandom(FRAME_BYTES)
    incoming, outgoing = pj.MediaFrame(), pj.MediaFrame()
    incoming.buf, incoming.size = pj.ByteVector(payload), FRAME_BYTES
    way.outgoing().put(outgoing, payload)
    assert way.read(incoming) == payload
    assert bytes(outgoing.buf) == payload


@pytest.mark.parametrize("way", [pcm.POINTER, pcm.SLOW])
def test_a_frame_of_another_size_is_none(way: pcm.PcmCopy) -> None:
    odd = pj.MediaFrame()
    odd.buf, odd.size = pj.ByteVector(b"ab"), 2
    assert way.read(odd) is None
    assert way.read(pj.MediaFrame()) is None


def test_the_way_of_2_16() -> None:
    frame, payload = FrameWithMethods(), os.urandom(FRAME_BYTES)
    pcm.METHOD.outgoing().put(frame, payload)
    assert pcm.METHOD.read(frame) == payload
    frame.size = 2
    assert pcm.METHOD.read(frame) is None


def test_the_fast_way_is_chosen_without_a_word() -> None:
    with capture_logs() as logs:
        assert pcm.choose().name == "pointer"
    assert logs == []


def wrong_read(_frame: object) -> bytes:
    return bytes(FRAME_BYTES)


def failing_read(_frame: object) -> bytes:
    raise AttributeError("copy_to_bytearray")


@pytest.mark.parametrize("read", [wrong_read, failing_read])
def test_a_way_that_does_not_work_is_left_loudly(read: object) -> None:
    broken = pcm.PcmCopy("broken", read, pcm.POINTER.outgoing)  # type: ignore[arg-type]
    with capture_logs() as logs:
        assert pcm.choose((broken,)) is pcm.SLOW
    assert [entry["log_level"] for entry in logs] == ["error", "error"]
    assert logs[0]["copy"] == "broken"
    assert pcm.choose((broken, pcm.POINTER)) is pcm.POINTER
