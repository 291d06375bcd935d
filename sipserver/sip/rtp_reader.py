"""RTP read once a tick by the media clock itself, instead of by a thread that every packet wakes.

The bridge takes sound from the streams' jitter buffers every 20 ms, so a packet read just before that is in time, and
four calls cost one `select` a tick instead of two hundred wake-ups a second. PJSIP's estimate of the callers' jitter is
then no finer than a tick. Where the symbols are hidden, PJMEDIA's own thread goes on reading.
"""

from __future__ import annotations

from collections.abc import Callable
from ctypes import byref

from sipserver.sip import native
from sipserver.sip.native import PjTime

_EVENTS_A_POLL = 16
"""`PJ_IOQUEUE_MAX_EVENTS_IN_SINGLE_POLL`."""
_MOST_POLLS = 8
_NEEDED = "pjsua_get_pjmedia_endpt", "pjmedia_endpt_get_ioqueue", "pjmedia_endpt_stop_threads", "pj_ioqueue_poll"


def take_over() -> Callable[[], None]:
    """End PJMEDIA's reading thread. Returns a function that reads what has come and returns at once: for the clock
    thread, or any that PJSIP knows; valid until the endpoint is gone. Where it cannot be done it does nothing.

    Sip thread, after `libInit`.
    """
    needed = native.functions(*_NEEDED)
    if needed is None:
        return lambda: None
    media_endpoint, queue_of, stop_threads, poll = needed
    endpoint = media_endpoint()
    stop_threads(endpoint)
    queue, at_once = queue_of(endpoint), byref(PjTime(0, 0))

    def read() -> None:
        for _ in range(_MOST_POLLS):
            if poll(queue, at_once) < _EVENTS_A_POLL:
                return

    return read
