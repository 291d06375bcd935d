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


def count() -> int:
    """Calls that the linked PJSIP holds at a time. For a throw-away process: it opens and closes an endpoint.

    The calling thread becomes PJSIP's main thread. Raises pj.Error. Prints nothing.
    """
    quieten()
    endpoint = pj.Endpoint()
    endpoint.libCreate()
    try:
        settings = pj.EpConfig()
        settings.logConfig.level = settings.logConfig.consoleLevel = 0
        settings.uaConfig.threadCnt, settings.uaConfig.maxCalls = 0, ASK_FOR
        endpoint.libInit(settings)
        found = read()
    finally:
        endpoint.libDestroy()
        pj.Endpoint.__swig_destroy__(endpoint)
    return found or probe()


def quieten() -> None:
    """Until `libInit` sets its level PJSIP would write to stdout."""
    set_level = native.function("pj_log_set_level")
    if set_level is not None:
        set_level(0)


def read() -> int | None:
    """What PJSIP says, None if it cannot be asked. Sip thread, after `libInit`."""
    count = native.function("pjsua_call_get_max_count")
    return int(count()) if count is not None else None


def taken() -> int | None:
    """Calls that hold a slot now, also those that wait for the answer to our BYE. None if PJSIP cannot be asked."""
    count = native.function("pjsua_call_get_count")
    return int(count()) if count is not None else None


def probe() -> int:
    """Count how many calls can be opened at the same time, in an endpoint of its own that is gone afterwards.

    Sip thread, while no other endpoint lives. The calls go to the discard port of this machine and never ring.
    """
    endpoint = pj.Endpoint()
    endpoint.libCreate()
    config = pj.EpConfig()
    config.uaConfig.maxCalls, config.uaConfig.threadCnt = ASK_FOR, 0
    config.logConfig.level = config.logConfig.consoleLevel = 0
    endpoint.libInit(config)
    transport = pj.TransportConfig()
    transport.boundAddress = "127.0.0.1"
    endpoint.transportCreate(pj.PJSIP_TRANSPORT_UDP, transport)
    endpoint.libStart()
    endpoint.audDevManager().setNoDev()
    account, settings = pj.Account(), pj.AccountConfig()
    settings.idUri = "sip:probe@127.0.0.1"
    account.create(settings, True)
    calls: list[pj.Call] = []
    try:
        while len(calls) < ASK_FOR:
            calls.append(pj.Call(account))
            calls[-1].makeCall(_NOWHERE, pj.CallOpParam(True))
        return len(calls)
    except pj.Error:
        return len(calls) - 1
    finally:
        for call in calls:
            pj.Call.__swig_destroy__(call)  # hangs up in C++
        pj.Account.__swig_destroy__(account)
        endpoint.libDestroy(pj.PJSUA_DESTROY_NO_NETWORK)
        pj.Endpoint.__swig_destroy__(endpoint)
