"""Keeps PJSIP's dialog layer from answering strangers.

It answers 481 to whatever names a dialog that does not exist, before `methods.py` hears of it: enough for a scanner to
find a server. So one module stands before that layer and remembers whether the request at work is a stranger's, and
keeps back a 481 for it. Requests of dialogs that exist are not touched. Where the symbols are hidden, the 481 goes out.
"""

from __future__ import annotations

from collections.abc import Callable
from ctypes import byref

from sipserver.log import logger
from sipserver.sip import native
from sipserver.sip.pj_module import OnMessage, PjModule

_PRIORITY = 30  # behind the transactions (16), before the dialog layer (32)
_NO_DIALOG = " 481/"
_KEEP_BACK = 1  # any status but PJ_SUCCESS stops a message


class StrangersSilence:
    """is_stranger: asked with the address of a `pjsip_rx_data`. Sip thread; keep the object until `remove`."""

    def __init__(self, is_stranger: Callable[[int], bool]) -> None:
        self._is_stranger = is_stranger
        self._at_work = False
        self._name = b"mod-sipserver-strangers"
        self._requested, self._answered = OnMessage(self._on_request), OnMessage(self._on_response)
        self._module = PjModule(
            name=self._name,
            name_length=len(self._name),
            id=-1,
            priority=_PRIORITY,
            on_rx_request=self._requested,
            on_tx_response=self._answered,
        )
        self._endpoint: int | None = None

    def install(self) -> bool:
        """After `libInit`. True when the module is in place."""
        needed = native.functions(
            "pjsua_get_pjsip_endpt",
            "pjsip_endpt_register_module",
            "pjsip_endpt_unregister_module",
            "pjsip_tx_data_get_info",
        )
        if needed is None:
            logger("sip").warning("this PJSIP hides its symbols: strangers may learn that no dialog exists")
            return False
        endpoint, register, self._unregister, self._describe = needed
        self._endpoint = endpoint()
        if register(self._endpoint, byref(self._module)) != 0 or self._module.id < 0:
            logger("sip").warning("PJSIP refused the module that keeps strangers in silence")
            self._endpoint = None
        return self._endpoint is not None

    def remove(self) -> None:
        """Before `libDestroy`."""
        if self._endpoint is not None:
            self._unregister(self._endpoint, byref(self._module))
            self._endpoint = None

    def _on_request(self, rdata: int) -> int:
        """0: the next module's turn. Must not raise into C."""
        try:
            self._at_work = self._is_stranger(rdata)
        except Exception:
            logger("sip").exception("the source of a request could not be judged")
            self._at_work = False
        return 0

    def _on_response(self, tdata: int) -> int:
        """PJSIP answers within the turn of the request's modules. Must not raise into C."""
        if not self._at_work:
            return 0
        try:
            return _KEEP_BACK if _NO_DIALOG in (self._describe(tdata) or b"").decode("ascii", "replace") else 0
        except Exception:
            logger("sip").exception("a response to a stranger could not be judged")
            return 0
