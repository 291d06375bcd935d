"""The few C functions of PJSIP that pjsua2 does not offer, taken from the extension's own exported symbols.

Owns finding them. Every user of this module works without them too, with less: a PJSIP linked as hidden symbols is
fine. All functions belong to the sip thread unless their user says otherwise; the GIL is released around them.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_char_p, c_int, c_long, c_ssize_t, c_uint, c_void_p
from functools import cache
from importlib import import_module
from typing import Any


class PjString(Structure):
    """`pj_str_t`: a pointer and a length. The bytes must live as long as PJSIP reads them."""

    _fields_ = (("ptr", c_char_p), ("slen", c_ssize_t))

    @classmethod
    def of(cls, text: bytes) -> PjString:
        return cls(text, len(text))


class PjTime(Structure):
    """`pj_time_val`."""

    _fields_ = (("sec", c_long), ("msec", c_long))


_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "pjsua_call_get_max_count": (ctypes.c_uint, ()),
    "pjsua_call_get_count": (ctypes.c_uint, ()),
    "pjsua_get_pjsip_endpt": (c_void_p, ()),
    "pjsua_pool_create": (c_void_p, (c_char_p, ctypes.c_size_t, ctypes.c_size_t)),
    "pj_log_set_level": (None, (c_int,)),
    "pj_pool_release": (None, (c_void_p,)),
    "pj_list_insert_before": (None, (c_void_p, c_void_p)),
    "pj_list_merge_last": (None, (c_void_p, c_void_p)),
    "pj_ioqueue_create": (c_int, (c_void_p, ctypes.c_size_t, POINTER(c_void_p))),
    "pjsip_endpt_get_ioqueue": (c_void_p, (c_void_p,)),
    "pjsua_get_pjmedia_endpt": (c_void_p, ()),
    "pjmedia_endpt_get_ioqueue": (c_void_p, (c_void_p,)),
    "pjsip_rx_data_get_info": (c_char_p, (c_void_p,)),
    "pjsip_tx_data_get_info": (c_char_p, (c_void_p,)),
    "pjsip_endpt_register_module": (c_int, (c_void_p, c_void_p)),
    "pjsip_endpt_unregister_module": (c_int, (c_void_p, c_void_p)),
    "pjsip_endpt_respond_stateless": (c_int, (c_void_p, c_void_p, c_int, POINTER(PjString), c_void_p, c_void_p)),
    "pjsip_generic_string_hdr_create": (c_void_p, (c_void_p, POINTER(PjString), POINTER(PjString))),
    "pjsip_rdata_get_dlg": (c_void_p, (c_void_p,)),
    "pjsip_rdata_get_tsx": (c_void_p, (c_void_p,)),
    "pjsip_dlg_respond": (c_int, (c_void_p, c_void_p, c_int, POINTER(PjString), c_void_p, c_void_p)),
    "pjmedia_stream_get_rtp_session_info": (c_int, (c_void_p, c_void_p)),
    "pjmedia_endpt_stop_threads": (c_int, (c_void_p,)),
    "pj_ioqueue_poll": (c_int, (c_void_p, POINTER(PjTime))),
    "pjsua_conf_add_port": (c_int, (c_void_p, c_void_p, POINTER(c_int))),
    "pjsua_conf_connect": (c_int, (c_int, c_int)),
    "pjsua_conf_disconnect": (c_int, (c_int, c_int)),
    "pjmedia_port_info_init": (c_int, (c_void_p, POINTER(PjString), c_uint, c_uint, c_uint, c_uint, c_uint)),
    "pjmedia_null_port_create": (c_int, (c_void_p, c_uint, c_uint, c_uint, c_uint, POINTER(c_void_p))),
    "pjmedia_port_get_frame": (c_int, (c_void_p, c_void_p)),
    "pjmedia_port_put_frame": (c_int, (c_void_p, c_void_p)),
    "_ZN2pj9SipRxData6fromPjER13pjsip_rx_data": (None, (c_void_p, c_void_p)),  # void SipRxData::fromPj(pjsip_rx_data &)
}


@cache
def _library() -> ctypes.CDLL | None:
    for name in ("pjsua2._pjsua2", "_pjsua2"):
        try:
            return ctypes.CDLL(str(import_module(name).__file__))
        except (ImportError, OSError):
            continue
    return None


@cache
def function(name: str) -> Any | None:
    """The C function with its signature set, or None when this PJSIP does not export it."""
    library = _library()
    found = getattr(library, name, None) if library is not None else None
    if found is not None:
        found.restype, found.argtypes = _SIGNATURES[name][0], list(_SIGNATURES[name][1])
    return found


def read_message(rdata: int) -> tuple[str, str] | None:
    """Text and source (`host:port`) of a received message by pjsua2's own conversion, None where it is hidden. rdata:
    address of a `pjsip_rx_data`. Bytes that are no UTF-8 come as surrogates.
    """
    convert = function("_ZN2pj9SipRxData6fromPjER13pjsip_rx_data")
    if convert is None:
        return None
    seen: Any = import_module("pjsua2").SipRxData()
    convert(int(seen.this), rdata)
    return str(seen.wholeMsg), str(seen.srcAddress)


def functions(*names: str) -> tuple[Any, ...] | None:
    """All of them, or None when one is missing."""
    found = tuple(function(name) for name in names)
    return None if None in found else found
