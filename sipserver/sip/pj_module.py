"""PJSIP's structures for modules of our own, made through ctypes. A number says between which layers they stand.

pjsua2 has no hook for messages outside its objects. Sip thread only.
"""

from __future__ import annotations

import ctypes
from ctypes import Structure, c_char_p, c_int, c_ssize_t, c_void_p

OnMessage = ctypes.CFUNCTYPE(c_int, c_void_p)
"""`pj_bool_t on_rx_request(pjsip_rx_data *)`, `pj_status_t on_tx_response(pjsip_tx_data *)`."""


class PjList(Structure):
    """The head of a `pj_list`."""

    _fields_ = (("prev", c_void_p), ("next", c_void_p))


class PjModule(Structure):
    """`struct pjsip_module` of pjsip/sip_module.h."""

    _fields_ = (
        ("prev", c_void_p),
        ("next", c_void_p),
        ("name", c_char_p),
        ("name_length", c_ssize_t),
        ("id", c_int),
        ("priority", c_int),
        ("load", c_void_p),
        ("start", c_void_p),
        ("stop", c_void_p),
        ("unload", c_void_p),
        ("on_rx_request", OnMessage),
        ("on_rx_response", c_void_p),
        ("on_tx_request", c_void_p),
        ("on_tx_response", OnMessage),
        ("on_tsx_state", c_void_p),
    )
