"""The few functions of libopus (RFC 6716; opus-codec.org/docs) that sipserver calls, by ctypes: names, types, errors.

Owns the library's loading. It refuses to know what the numbers mean for a call: that is opus.py's. The ABI `.so.0` has
been the same since libopus 1.0 (2012). While libopus works, other threads run: ctypes lets the interpreter's lock go.
"""

from __future__ import annotations

import ctypes
from ctypes import c_char_p, c_int, c_int32, c_void_p
from functools import cache

from sipserver.errors import ConfigError

LIBRARY = "libopus.so.0"
APPLICATION_VOIP = 2048
SET_BIT_RATE, SET_COMPLEXITY, SET_FEC, SET_LOSS_PERCENT, SET_DTX, SET_SIGNAL = 4002, 4010, 4012, 4014, 4016, 4024
SIGNAL_VOICE = 3001


@cache
def library() -> ctypes.CDLL:
    """Loaded when first asked for. Raises ConfigError where there is none."""
    try:
        opus = ctypes.CDLL(LIBRARY)
    except OSError as problem:
        raise ConfigError(
            f"{LIBRARY} is needed for Opus and cannot be loaded ({problem}): apt-get install libopus0"
        ) from problem
    opus.opus_encoder_create.argtypes = (c_int32, c_int, c_int, ctypes.POINTER(c_int))
    opus.opus_encoder_create.restype = c_void_p
    opus.opus_decoder_create.argtypes = (c_int32, c_int, ctypes.POINTER(c_int))
    opus.opus_decoder_create.restype = c_void_p
    opus.opus_encode.argtypes = (c_void_p, c_void_p, c_int, c_void_p, c_int32)
    opus.opus_encode.restype = c_int32
    opus.opus_decode.argtypes = (c_void_p, c_char_p, c_int32, c_void_p, c_int, c_int)
    opus.opus_decode.restype = c_int
    for name in ("opus_encoder_destroy", "opus_decoder_destroy"):
        function = getattr(opus, name)
        function.argtypes, function.restype = (c_void_p,), None
    opus.opus_strerror.argtypes, opus.opus_strerror.restype = (c_int,), c_char_p
    # Variadic: what follows these two is passed as it comes, as c_int32.
    opus.opus_encoder_ctl.argtypes, opus.opus_encoder_ctl.restype = (c_void_p, c_int), c_int
    return opus


def new_encoder(rate_hz: int) -> int:
    """The address of an encoder for one voice; the caller destroys it. Raises MemoryError."""
    return _made(library().opus_encoder_create, rate_hz, 1, APPLICATION_VOIP)


def new_decoder(rate_hz: int) -> int:
    """The address of a decoder that gives mono, whatever comes; the caller destroys it. Raises MemoryError."""
    return _made(library().opus_decoder_create, rate_hz, 1)


def set_encoder(encoder: int, request: int, value: int) -> None:
    """Raises ValueError for a value that libopus refuses; the encoder stays as it was."""
    code = library().opus_encoder_ctl(encoder, request, c_int32(value))
    if code < 0:
        raise ValueError(f"libopus refuses {value} for request {request}: {meaning(code)}")


def meaning(code: int) -> str:
    """What libopus says about an error code."""
    return bytes(library().opus_strerror(code)).decode()


def _made(create: ctypes._NamedFuncPointer, *arguments: int) -> int:
    code = c_int(0)
    address = create(*arguments, ctypes.byref(code))
    if code.value < 0 or not address:
        raise MemoryError(f"libopus makes no codec of {arguments}: {meaning(code.value)}")
    return int(address)
