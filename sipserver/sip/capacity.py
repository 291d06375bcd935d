"""How many calls the linked PJSIP holds.

`PJSUA_MAX_CALLS` is fixed when PJSIP is compiled, and `maxCalls` above it is clamped without a word. So the answer is
read from the library after `libInit` with `ASK_FOR`, or, where the symbol is hidden, found by opening calls until one
fails.
"""

from __future__ import annotations

import pjsua2 as pj

from sipserver.sip import native

ASK_FOR = 32
"""`maxCalls` given to PJSIP: more calls than this do not fit one GIL."""

_NOWHERE = "sip:probe@127.0.0.1:9"


def read() -> int | None:
    """What PJSIP says, None if it cannot be asked. Sip thread, after `libInit`."""
    count = native.function("pjsua_call_get_max_count")
    return int(count()) if count is not None else None


def taken() -> int | None:
    """Calls that hold a slot now, also those that wait for the answer to our BYE. None if PJSIP cannot be asked."""
    count = native.function("pjsua_call_get_count")
    return int(count()) if count is not None else None


def probe(account: pj.Account, most: int = ASK_FOR) -> int:
    """Count how many calls can be opened at the same time. Sip thread, after `libStart`, before the first call.

    The calls go to the discard port of this machine and are gone before they ring.
    """
    opened: list[pj.Call] = []
    try:
        while len(opened) < most:
            call = pj.Call(account)
            prm = pj.CallOpParam(True)
            prm.opt.audioCount, prm.opt.videoCount = 1, 0
            try:
                call.makeCall(_NOWHERE, prm)
            except pj.Error:
                pj.Call.__swig_destroy__(call)
                break
            opened.append(call)
        return len(opened)
    finally:
        for call in opened:
            pj.Call.__swig_destroy__(call)  # hangs up in C++


def find(account: pj.Account) -> int:
    """Calls that PJSIP holds at a time, by `read` or else by `probe`."""
    return read() or probe(account)
