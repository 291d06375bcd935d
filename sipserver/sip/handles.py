"""More keys for PJSIP's I/O queues, so that a burst of sockets cannot end the process.

A queue of PJSIP has one key for each of its (64) handles, and a socket that was closed keeps its key for half a second
(`PJ_IOQUEUE_KEY_FREE_DELAY`). When sockets come and go faster than that, `pj_ioqueue_register_sock` finds no free key,
and in a build with assertions that aborts the process: thirty INVITEs within half a second that are refused at once
(two sockets each) or sixty TCP connections that open and close are enough. The number of *open* handles stays what it
was; beyond it PJSIP refuses in an orderly way. `Pace` keeps new calls below what the added keys allow. Nothing paces
TCP connections: a flood of thousands a second is for the edge to keep away.

The free keys are a `pj_list` within `pj_ioqueue_t`, whose layout no header of the wheel tells. It is found by its
shape, in a queue of our own in a pool of our own, where every pointer can be checked before it is followed. Then the
keys of further queues are moved over by PJSIP's own list function. Sip thread only, before the first socket.
Why this and nothing else: docs/decisions/0008-more-keys-for-pjsip.md.
"""

from __future__ import annotations

import ctypes
import time
from collections import deque
from collections.abc import Callable
from ctypes import byref, c_void_p
from typing import Any

from sipserver.log import logger
from sipserver.sip import native

Clock = Callable[[], float]

QUEUE_KEYS = 64
"""As many as `PJ_IOQUEUE_MAX_HANDLES` of the wheel: PJSIP creates no larger queue."""

MEDIA_QUEUES = 4
"""How many queues' keys are added for media: 250 sockets may come and go within half a second, for 64 KB a queue."""

TCP_QUEUES = 8
"""How many are added for signalling when it listens for TCP connections; UDP has one socket for ever."""

KEY_FREE_S = 0.6
"""A little more than PJSIP keeps the key of a closed socket."""

CALLS_AT_ONCE = 100
"""New calls let in within KEY_FREE_S. Each has two sockets, for which the added keys do."""

_POOL_BYTES = 65_536
_PROBE_KEYS = (5, 11)
_POOL_HEAD = 512
_HEAD_WITHIN = 16_384
_WORD = ctypes.sizeof(c_void_p)


class Pace:
    """At most `most` things within a sliding window. Pure but for the clock it is given; one thread."""

    def __init__(self, most: int = CALLS_AT_ONCE, window_s: float = KEY_FREE_S, clock: Clock = time.monotonic) -> None:
        self._moments: deque[float] = deque(maxlen=most)
        self._window_s = window_s
        self._clock = clock

    def take(self) -> bool:
        """Count one more, unless there were too many just now: then False."""
        now, moments = self._clock(), self._moments
        if len(moments) == moments.maxlen and now - moments[0] < self._window_s:
            return False
        moments.append(now)
        return True


def enlarge(*, tcp: bool) -> int:
    """Give PJSIP's queue for media, and with tcp that for signalling, more keys. Returns how many they got together; 0
    where it cannot be done.
    """
    needed = native.functions(
        "pjsua_pool_create", "pj_ioqueue_create", "pj_list_merge_last", "pj_pool_release", "pjsua_get_pjsip_endpt",
        "pjsip_endpt_get_ioqueue", "pjsua_get_pjmedia_endpt", "pjmedia_endpt_get_ioqueue",
    )  # fmt: skip
    if needed is None:
        logger("sip").warning("this PJSIP hides its symbols: bursts of calls or connections may end the process")
        return 0
    new_pool, create, merge, release, sip_endpoint, sip_queue, media_endpoint, media_queue = needed
    offset = _find_free_list(new_pool, create, release)
    if offset is None:
        logger("sip").warning(
            "PJSIP's I/O queue is not as expected: bursts of calls or connections may end the process"
        )
        return 0
    pool = new_pool(b"sipserver-keys", _POOL_BYTES, _POOL_BYTES)  # lives until PJSIP frees all of its pools
    wanted = [media_queue(media_endpoint())] * MEDIA_QUEUES + [sip_queue(sip_endpoint())] * (TCP_QUEUES if tcp else 0)
    for queue in wanted:
        spare = _create(create, pool, QUEUE_KEYS)
        merge(queue + offset, spare + offset)
    return len(wanted) * QUEUE_KEYS


def _create(create: Any, pool: int, keys: int) -> int:
    queue = c_void_p()
    if create(pool, keys, byref(queue)) != 0 or not queue.value:
        raise MemoryError("PJSIP could not create an I/O queue")
    return queue.value


def _find_free_list(new_pool: Any, create: Any, release: Any) -> int | None:
    """Offset of the list of free keys in `pj_ioqueue_t`: the first ring of exactly as many nodes as the queue has keys.

    PJSIP leaves parts of the structure as malloc gave them, and what an earlier queue left there can look like a ring.
    So the pool is wiped, and a first queue uses up the part next to the pool's own head, which must not be touched.
    """
    offsets: set[int | None] = set()
    for keys in _PROBE_KEYS:
        pool = new_pool(b"sipserver-probe", _POOL_BYTES, _POOL_BYTES)
        ctypes.memset(pool + _POOL_HEAD, 0, _POOL_BYTES - 2 * _POOL_HEAD)
        _create(create, pool, keys)
        queue = _create(create, pool, keys)
        if not pool + _POOL_HEAD < queue < pool + _POOL_BYTES - _HEAD_WITHIN - 2 * _WORD:
            return None
        last = pool + _POOL_BYTES - 2 * _WORD
        rings = (offset for offset in range(0, _HEAD_WITHIN, _WORD) if _ring(queue + offset, pool, last, keys) == keys)
        offsets.add(next(rings, None))
        release(pool)
    return offsets.pop() if len(offsets) == 1 else None


def _ring(head: int, low: int, high: int, most: int) -> int:
    """How many other nodes a `pj_list` (prev, next) at head has, counting up to `most`; 0 if there is none. Only reads
    from low to high."""
    node, count = head, 0
    while count <= most:
        following = c_void_p.from_address(node + _WORD).value or 0
        if following == head:
            return count if c_void_p.from_address(head).value == node else 0
        if not low <= following <= high or c_void_p.from_address(following).value != node:
            return 0
        node, count = following, count + 1
    return 0
