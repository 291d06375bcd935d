"""Answers to requests inside a dialog that pjsua leaves to "500 Unhandled by dialog usages". Sip thread only.

pjsua2 cannot answer them itself; PJSIP's dialog can, through one exported function. Where that
is hidden, the 500 remains.
"""

from __future__ import annotations

from typing import Any

from sipserver.sip import native

LEFT_TO_PJSIP = frozenset({"INVITE", "ACK", "BYE", "CANCEL", "UPDATE", "PRACK", "REFER", "NOTIFY", "MESSAGE"})


def respond(rdata: Any, code: int) -> bool:
    """Answer the request that a transaction callback is about. rdata: its pjsua2 `SipRxData`. False when it cannot."""
    needed = native.functions("pjsip_rdata_get_dlg", "pjsip_rdata_get_tsx", "pjsip_dlg_respond")
    if needed is None:
        return False
    dialog_of, transaction_of, answer = needed
    pointer = int(rdata.pjRxData)
    dialog = dialog_of(pointer)
    if not dialog or not transaction_of(pointer):
        return False
    return bool(answer(dialog, pointer, code, None, None, None) == 0)
