"""Answers to requests outside any dialog that this server does not serve.

pjsua answers SUBSCRIBE and MESSAGE on its own (with 200), and REGISTER, INFO, PUBLISH and a stray BYE not at all.
pjsua2 has no hook for them, so one small PJSIP module, made through ctypes, stands between PJSIP's dialog layer and
pjsua and refuses what its `decide` says: 405 goes out with `Allow`, refused calls with what their `Refusal` says.
Requests inside a dialog never reach it. Where the symbols are hidden, the module is not installed: then PJSIP's own
behaviour remains, and a warning says so.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from ctypes import byref
from typing import Any

from sipserver.log import logger
from sipserver.sip import native
from sipserver.sip.admission import DRAINING, LIMIT, NO_FILES, NO_PORTS, PACE, Refusal
from sipserver.sip.native import PjString
from sipserver.sip.pj_module import OnMessage, PjList, PjModule

SERVED = ("INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "UPDATE", "INFO", "PRACK")
OUTSIDE_DIALOGS = frozenset({"INVITE", "ACK", "OPTIONS"})
"""What goes on to PJSIP when it belongs to no dialog."""
NEEDS_DIALOG = frozenset({"BYE", "CANCEL"})
"""What gets 481 when it belongs to no dialog."""

_PRIORITY = 50  # behind the dialog layer (32) and its usages (48), before pjsua's own modules (64)
NO_METHOD = Refusal(405, "method")
NO_DIALOG = Refusal(481, "dialog")

Decide = Callable[[str, int], Refusal | None]
"""Method of a request outside any dialog and the address of its `pjsip_rx_data` -> how to refuse it, None to let PJSIP
serve it. Sip thread.
"""


class MethodGate:
    """All methods: sip thread. `install` after `libInit`, `remove` before `libDestroy`. Keep the object until then."""

    def __init__(self, decide: Decide, retry_after_s: int) -> None:
        self._decide = decide
        self._retry_after_s = retry_after_s
        self._name = b"mod-sipserver-methods"
        self._callback = OnMessage(self._on_request)
        self._module = PjModule(
            name=self._name, name_length=len(self._name), id=-1, priority=_PRIORITY, on_rx_request=self._callback
        )
        self._endpoint: int | None = None
        self._pool: int | None = None
        self._kept: list[Any] = []
        self._headers: dict[Refusal, PjList] = {}
        self.refused = 0

    def install(self) -> bool:
        """True when the module is in place."""
        needed = native.functions(
            "pjsua_get_pjsip_endpt", "pjsip_endpt_register_module", "pjsip_endpt_unregister_module",
            "pjsua_pool_create",
            "pj_pool_release", "pjsip_rx_data_get_info", "pjsip_endpt_respond_stateless",
            "pjsip_generic_string_hdr_create",
            "pj_list_insert_before",
        )  # fmt: skip
        if needed is None:
            logger("sip").warning("this PJSIP hides its symbols: unserved methods outside dialogs are left to it")
            return False
        endpoint, register, self._unregister, self._new_pool, self._release = needed[:5]
        self._describe, self._respond, self._create, self._insert = needed[5:]
        self._endpoint = endpoint()
        self._pool = self._new_pool(self._name, 1024, 1024)
        self._headers[NO_METHOD] = self._header_list([("Allow", ", ".join(SERVED))], self._pool, self._kept)
        for refusal in (LIMIT, DRAINING, PACE, NO_PORTS, NO_FILES):
            fields = refusal.headers(self._retry_after_s).items()
            self._headers[refusal] = self._header_list(fields, self._pool, self._kept)
        if register(self._endpoint, byref(self._module)) != 0 or self._module.id < 0:
            logger("sip").warning("PJSIP refused the module for unserved methods")
            self._release(self._pool)
            self._endpoint = self._pool = None
            return False
        return True

    def remove(self) -> None:
        if self._endpoint is not None:
            self._unregister(self._endpoint, byref(self._module))
            self._release(self._pool)
            self._endpoint = self._pool = None

    def _header_list(self, fields: Iterable[tuple[str, str]], pool: int, kept: list[Any]) -> PjList:
        """kept: what must live as long as the list."""
        head = PjList()
        head.prev = head.next = ctypes.addressof(head)
        kept.append(head)
        for field in fields:
            name, value = (PjString.of(text.encode()) for text in field)
            self._insert(byref(head), self._create(pool, byref(name), byref(value)))
            kept += [name, value]
        return head

    def _answer(self, rdata: int, refusal: Refusal) -> None:
        """PJSIP copies the headers."""
        if not refusal.extra:
            headers = self._headers.get(refusal)
            self._respond(
                self._endpoint, rdata, refusal.code, None, byref(headers) if headers is not None else None, None
            )
            return
        pool = self._new_pool(self._name, 1024, 1024)
        try:
            kept: list[Any] = []
            head = self._header_list(refusal.extra, pool, kept)
            self._respond(self._endpoint, rdata, refusal.code, None, byref(head), None)
        finally:
            self._release(pool)

    def _on_request(self, rdata: int) -> int:
        """1: answered here, 0: the next module's turn. Must not raise into C."""
        try:
            method = method_of(self._describe(rdata) or b"")
            refusal = self._decide(method, rdata)
            if refusal is None:
                return 0
            self.refused += 1
            if refusal.code and method != "ACK":
                self._answer(rdata, refusal)
            return 1
        except Exception:
            logger("sip").exception("a request outside dialogs could not be refused")
            return 0


def method_of(description: bytes) -> str:
    """The method in PJSIP's description of a request, "Request msg REGISTER/cseq=1 (rdata0x...)"; empty if there is
    none.
    """
    words = description.decode("ascii", "replace").split(" ")
    return words[2].partition("/")[0].upper() if len(words) > 2 and words[0] == "Request" else ""
