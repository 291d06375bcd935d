"""Keeps PJSIP's dialog layer from answering strangers.

It answers 481 to whatever names a dialog that does not exist, before `methods.py` hears of it: enough for a scanner to
find a server. So one module stands before that layer and remembers whether the request at work is a stranger's, and
keeps back a 481 for it. Requests of dialogs that exist are not touched. Where the symbols are hidden, the 481 goes out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sipserver.log import logger
from sipserver.sip import native
from sipserver.sip.pj_module import Hook

_PRIORITY = 30  # behind the transactions (16), before the dialog layer (32)
_NO_DIALOG = " 481/"
_KEEP_BACK = 1  # any status but PJ_SUCCESS stops a message


class StrangersSilence:
    """is_stranger: asked with the address of a `pjsip_rx_data`. Sip thread; keep the object until `remove`."""

    def __init__(self, is_stranger: Callable[[int], bool]) -> None:
        self._is_stranger = is_stranger
        self._at_work = False
        self._hook = Hook(
            "mod-sipserver-strangers", _PRIORITY, on_rx_request=self._on_request, on_tx_response=self._on_response
        )
        self._describe: Any = None

    def install(self) -> bool:
        """After `libInit`. True when the module is in place."""
        self._describe = native.function("pjsip_tx_data_get_info")
        if self._describe is None or not self._hook.install():
            logger("sip").warning("this PJSIP takes no module of ours: strangers may learn that no dialog exists")
            return False
        return True

    def remove(self) -> None:
        """Before `libDestroy`."""
        self._hook.remove()

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
