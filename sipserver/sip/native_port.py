"""A port of the conference bridge made through ctypes: two callbacks that move 640 bytes by pointer.

Owns the layout of `pjmedia_port` and `pjmedia_frame` (pjmedia/port.h, pjmedia/frame.h) and the check that it is the
linked library's. pjsua2's own `AudioMediaPort` makes three Python objects and copies a vector for each frame; this one
makes none. Where a symbol is hidden or the layout is another, `usable` says so, loudly, and pjsua2's port is used.
"""

from __future__ import annotations

import ctypes
import struct
from ctypes import Structure, byref, c_int, c_int32, c_long, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any, Protocol

import pjsua2 as pj

from sipserver.audio.frame import FRAME_BYTES, FRAME_MS, FRAME_SAMPLES, RATE_HZ, SILENCE_PAYLOAD
from sipserver.log import logger
from sipserver.sip import native
from sipserver.sip.native import PjString

_SIGNATURE = 0x53495053
_AUDIO = 1  # PJMEDIA_FRAME_TYPE_AUDIO
_NEAR = 1 << 16
"""Two functions of one object file lie within this many bytes."""
_CALLBACK = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p)


class Jack(Protocol):
    """Who is behind a port. Both: media clock thread, called by the bridge while it holds its lock; must not raise.

    The bridge pulls from all ports, in the order of their slots, before it pushes to any, in the same order.
    """

    def pull(self) -> bytes | None:
        """640 bytes for the listeners of the port, None for silence. Called while the port has a listener."""
        ...

    def push(self, payload: bytes) -> None:
        """640 bytes, the mix of what the port listens to. Called while it listens, and now and then when not."""
        ...


class _Format(Structure):
    _fields_ = (
        ("id", c_uint32), ("type", c_int32), ("detail_type", c_int32),
        ("clock_rate", c_uint32), ("channel_count", c_uint32), ("frame_time_usec", c_uint32),
        ("bits_per_sample", c_uint32), ("avg_bps", c_uint32), ("max_bps", c_uint32),
    )  # fmt: skip


class _Info(Structure):
    _fields_ = (("name", PjString), ("signature", c_uint32), ("dir", c_int32), ("fmt", _Format))


class _Port(Structure):
    _fields_ = (
        ("info", _Info),
        ("pdata", c_void_p), ("ldata", c_long),
        ("grp_lock", c_void_p), ("get_clock_src", c_void_p),
        ("put_frame", c_void_p), ("get_frame", c_void_p), ("on_destroy", c_void_p),
    )  # fmt: skip


class _Frame(Structure):
    _fields_ = (
        ("type", c_int32), ("buf", c_void_p), ("size", c_size_t), ("timestamp", c_uint64), ("bit_info", c_uint32)
    )  # fmt: skip


_HEAD = struct.Struct("@iPN")  # type, buf, size
_unpack, _head_bytes = _HEAD.unpack, _HEAD.size
_string_at, _memmove = ctypes.string_at, ctypes.memmove
_type_at = c_int32.from_address


class NativePort:
    """One slot of the bridge for ever: made once the endpoint is up, freed by PJSIP with all the rest of it.

    Sip thread. Keep the object until the endpoint is gone: the bridge holds its address. Raises MemoryError when the
    bridge has no slot left.
    """

    def __init__(self, jack: Jack) -> None:
        needed = native.functions("pjsua_pool_create", "pjsua_conf_add_port", "pjsua_conf_connect",
                                  "pjsua_conf_disconnect", "pjmedia_port_info_init")  # fmt: skip
        assert needed is not None
        pool, add, self._connect, self._disconnect, _ = needed
        self._made = _Made(jack)
        self._pool = pool(b"sipserver-port", 1024, 1024)
        slot = c_int(-1)
        if add(self._pool, byref(self._made.port), byref(slot)) != 0 or slot.value < 0:
            raise MemoryError("the conference bridge has no slot left")
        self.slot = slot.value

    def listen(self, audio: pj.AudioMedia, on: bool) -> None:
        """Push what a source says into the jack, or no longer."""
        (self._connect if on else self._disconnect)(audio.getPortId(), self.slot)

    def speak(self, audio: pj.AudioMedia, on: bool) -> None:
        """Send what the jack gives to a sink, or no longer."""
        (self._connect if on else self._disconnect)(self.slot, audio.getPortId())

    def tick(self) -> None:
        """Have both callbacks called in every tick of the bridge: the port listens to itself."""
        self._connect(self.slot, self.slot)

    def destroy(self) -> None:
        """Nothing: the port goes with the endpoint."""


class _Made:
    """The C side: the structure and its two callbacks, to be kept together."""

    def __init__(self, jack: Jack) -> None:
        pull, push = jack.pull, jack.push

        def get_frame(_port: int, frame: int) -> int:
            payload = pull()
            if payload is None:
                _type_at(frame).value = 0
                return 0
            _, buffer, _ = _unpack(_string_at(frame, _head_bytes))
            _type_at(frame).value = _AUDIO
            _memmove(buffer, payload, FRAME_BYTES)
            return 0

        def put_frame(_port: int, frame: int) -> int:
            kind, buffer, size = _unpack(_string_at(frame, _head_bytes))
            push(_string_at(buffer, FRAME_BYTES) if size == FRAME_BYTES and kind == _AUDIO else SILENCE_PAYLOAD)
            return 0

        describe = native.function("pjmedia_port_info_init")
        assert describe is not None
        self._name = PjString.of(b"leg")
        self._callbacks = _CALLBACK(put_frame), _CALLBACK(get_frame)
        self.port = _Port()
        describe(byref(self.port), byref(self._name), _SIGNATURE, RATE_HZ, 1, 16, FRAME_SAMPLES)
        self.port.put_frame, self.port.get_frame = (ctypes.cast(each, c_void_p).value for each in self._callbacks)


def usable() -> bool:
    """Whether ports can be made this way. Sip thread, once the endpoint is up."""
    needed = native.functions(
        "pjsua_pool_create", "pj_pool_release", "pjmedia_null_port_create", "pjmedia_port_get_frame",
        "pjmedia_port_put_frame", "pjmedia_port_info_init", "pjsua_conf_add_port", "pjsua_conf_connect",
        "pjsua_conf_disconnect",
    )  # fmt: skip
    if needed is None:
        logger("sip").warning("this PJSIP hides its symbols: sound goes through pjsua2's ports, at twice the CPU")
        return False
    if not _fits(*needed[:5]):
        logger("sip").error("PJMEDIA's port is not as expected: sound goes through pjsua2's ports, at twice the CPU")
        return False
    return True


def _fits(new_pool: Any, release: Any, null_port: Any, get: Any, put: Any) -> bool:
    pool = new_pool(b"sipserver-check", 4096, 4096)
    try:
        address = c_void_p()
        if null_port(pool, RATE_HZ, 1, FRAME_SAMPLES, 16, byref(address)) != 0 or not address.value:
            return False
        return _theirs_reads_well(address.value, null_port, get) and _ours_is_called(get, put)
    finally:
        release(pool)


def _theirs_reads_well(address: int, near: Any, get: Any) -> bool:
    """PJMEDIA's own silent port has its format and its functions where we look for them, and fills a frame so."""
    port = _Port.from_address(address)
    form, code = port.info.fmt, ctypes.cast(near, c_void_p).value or 0
    functions = (port.put_frame, port.get_frame)
    if (form.clock_rate, form.channel_count, form.bits_per_sample) != (RATE_HZ, 1, 16):
        return False
    if form.frame_time_usec != FRAME_MS * 1000 or not all(each and abs(each - code) < _NEAR for each in functions):
        return False
    samples = ctypes.create_string_buffer(b"\x55" * FRAME_BYTES, FRAME_BYTES)
    frame = _Frame(0, ctypes.addressof(samples), FRAME_BYTES)
    return get(address, byref(frame)) == 0 and (frame.type, frame.size, samples.raw) == (
        _AUDIO,
        FRAME_BYTES,
        bytes(FRAME_BYTES),
    )


class _Probe:
    def __init__(self) -> None:
        self.pushed = b""

    def pull(self) -> bytes:
        return b"\x2a" * FRAME_BYTES

    def push(self, payload: bytes) -> None:
        self.pushed = payload


def _ours_is_called(get: Any, put: Any) -> bool:
    probe = _Probe()
    made = _Made(probe)
    samples = ctypes.create_string_buffer(FRAME_BYTES)
    frame = _Frame(0, ctypes.addressof(samples), FRAME_BYTES)
    if get(byref(made.port), byref(frame)) != 0 or (frame.type, samples.raw) != (_AUDIO, probe.pull()):
        return False
    return put(byref(made.port), byref(frame)) == 0 and probe.pushed == probe.pull()
