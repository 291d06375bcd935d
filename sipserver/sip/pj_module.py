"""PJSIP's structures for modules of our own, made through ctypes. A number says between which layers they stand.

pjsua2 has no hook for messages outside its objects. Sip thread only.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import Structure, byref, c_char_p, c_int, c_ssize_t, c_void_p

from sipserver.sip import native

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


class Hook:
    """A module that listens. Each callback gets the address of a message, answers 0 for "the next module's turn", and
    must not raise: it would raise into C. Sip thread; keep the object until `remove`.
    """

    def __init__(
        self,
        name: str,
        priority: int,
        *,
        on_rx_request: Callable[[int], int] | None = None,
        on_rx_response: Callable[[int], int] | None = None,
        on_tx_response: Callable[[int], int] | None = None,
    ) -> None:
        self._name = name.encode()
        given = {"on_rx_request": on_rx_request, "on_tx_response": on_tx_response}
        self._callbacks = {kind: OnMessage(callback) for kind, callback in given.items() if callback is not None}
        self._received = OnMessage(on_rx_response) if on_rx_response is not None else None
        self._module = PjModule(
            name=self._name,
            name_length=len(self._name),
            id=-1,
            priority=priority,
            on_rx_response=ctypes.cast(self._received, c_void_p) if self._received is not None else None,
            **self._callbacks,
        )
        self._endpoint: int | None = None

    def install(self) -> bool:
        """After `libInit`. False where this PJSIP hides its symbols or refuses the module."""
        needed = native.functions(
            "pjsua_get_pjsip_endpt", "pjsip_endpt_register_module", "pjsip_endpt_unregister_module"
        )
        if needed is None:
            return False
        endpoint, register, self._unregister = needed
        found = endpoint()
        if register(found, byref(self._module)) == 0 and self._module.id >= 0:
            self._endpoint = found
        return self._endpoint is not None

    def remove(self) -> None:
        """Before `libDestroy`."""
        if self._endpoint is not None:
            self._unregister(self._endpoint, byref(self._module))
            self._endpoint = None
