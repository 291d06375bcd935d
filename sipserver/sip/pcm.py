"""PCM in and out of PJMEDIA without touching each byte from Python.

Owns the copy between a pjsua2 `ByteVector` and `bytes`. SWIG's own way goes element by element and costs over 200 us
for one frame; a pointer copy costs 2 us. PJSIP 2.16 brings methods for it. `choose` checks the way it picks against
SWIG's own and falls back to that one, loudly, when they differ. Refuses to know calls, ports and threads.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import pjsua2 as pj

from sipserver.audio.frame import FRAME_BYTES
from sipserver.log import logger


class Outgoing(Protocol):
    """A reused buffer of one frame. Media clock thread only."""

    def put(self, frame: Any, payload: bytes) -> None:
        """Make 640 bytes the content of a pjsua2 `MediaFrame`."""
        ...


@dataclass(frozen=True, slots=True)
class PcmCopy:
    """name: method | pointer | slow. read: the 640 bytes of a `MediaFrame`, None when it holds something
    else. outgoing: makes one reusable buffer."""

    name: str
    read: Callable[[Any], bytes | None]
    outgoing: Callable[[], Outgoing]


# --- SWIG's own way ---------------------------------------------------------------------------------------------------


def _slow_read(frame: Any) -> bytes | None:
    return bytes(frame.buf) if frame.size == FRAME_BYTES else None


class _SlowOutgoing:
    def put(self, frame: Any, payload: bytes) -> None:
        frame.buf = pj.ByteVector(payload)


# --- by pointer -------------------------------------------------------------------------------------------------------
#
# A MediaFrame is an int, a std::vector<unsigned char> and an unsigned; the vector begins with the addresses of its
# first element and of its end. So one read of the frame's head tells where the samples are, without a SWIG proxy.

_HEAD = struct.Struct("@i4xPP")
_pointer_at = ctypes.c_void_p.from_address
_string_at = ctypes.string_at
_memmove = ctypes.memmove


def _pointer_read(frame: Any) -> bytes | None:
    _, first, end = _HEAD.unpack(_string_at(int(frame.this), _HEAD.size))
    return _string_at(first, FRAME_BYTES) if end - first == FRAME_BYTES else None


class _PointerOutgoing:
    def __init__(self) -> None:
        self._vector = pj.ByteVector(bytes(FRAME_BYTES))
        self._address = _pointer_at(int(self._vector.this)).value or 0

    def put(self, frame: Any, payload: bytes) -> None:
        _memmove(self._address, payload, FRAME_BYTES)
        frame.buf = self._vector


# --- by PJSIP 2.16's methods ------------------------------------------------------------------------------------------


def _method_read(frame: Any) -> bytes | None:
    if frame.size != FRAME_BYTES:
        return None
    target = bytearray(FRAME_BYTES)
    frame.buf.copy_to_bytearray(target)
    return bytes(target)


class _MethodOutgoing:
    def put(self, frame: Any, payload: bytes) -> None:
        frame.buf.assign_from_bytes(payload)


SLOW = PcmCopy("slow", _slow_read, _SlowOutgoing)
POINTER = PcmCopy("pointer", _pointer_read, _PointerOutgoing)
METHOD = PcmCopy("method", _method_read, _MethodOutgoing)


def choose(candidates: tuple[PcmCopy, ...] | None = None) -> PcmCopy:
    """The fastest way that agrees with SWIG's own. Any thread; takes about a millisecond. Call before media runs."""
    for candidate in candidates if candidates is not None else tuple(_available()):
        try:
            if all(_agrees(candidate, sample) for sample in _samples()):
                return candidate
            reason = "it gives other bytes than SWIG's own copy"
        except Exception as error:
            reason = repr(error)
        logger("sip").error(
            "a PCM copy does not work with this pjsua2, trying the next", copy=candidate.name, reason=reason
        )
    logger("sip").error("PCM is copied byte by byte: expect 20 times the CPU for each call", copy=SLOW.name)
    return SLOW


def _available() -> Iterator[PcmCopy]:
    if hasattr(pj.ByteVector, "copy_to_bytearray") and hasattr(pj.ByteVector, "assign_from_bytes"):
        yield METHOD
    yield POINTER


def _samples() -> Iterator[bytes]:
    for seed in (1, 7, 93):
        yield bytes((seed + index * 31) % 256 for index in range(FRAME_BYTES))


def _agrees(candidate: PcmCopy, payload: bytes) -> bool:
    read = pj.MediaFrame()
    read.buf, read.size = pj.ByteVector(payload), FRAME_BYTES
    empty = pj.MediaFrame()
    if candidate.read(empty) is not None:
        return False
    written = pj.MediaFrame()
    outgoing = candidate.outgoing()
    outgoing.put(written, bytes(FRAME_BYTES))
    outgoing.put(written, payload)
    return candidate.read(read) == payload and bytes(written.buf) == payload and len(written.buf) == FRAME_BYTES
