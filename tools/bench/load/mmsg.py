"""Many datagrams with one system call: sendmmsg(2) and recvmmsg(2) over numpy arrays.

Owns the layout of the kernel's structures (Linux, 64 bit). Refuses to know what the datagrams hold. Sending one RTP
packet with `socket.sendto` costs Python as much as the kernel needs for three; a load generator that shares the machine
with what it measures cannot afford that.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket

import numpy as np
from numpy.typing import NDArray

SO_TIMESTAMPNS = 35
_DONT_WAIT = int(socket.MSG_DONTWAIT)
_STAMP_BYTES = 32
"""One control message: cmsghdr (16) and timespec (16)."""

ADDRESS = np.dtype([("family", "<u2"), ("port", ">u2"), ("host", ">u4"), ("zero", "V8")])
"""struct sockaddr_in."""
_VECTOR = np.dtype([("base", "<u8"), ("length", "<u8")])
_HEADER = np.dtype(
    {
        "names": ["name", "name_length", "vector", "vectors", "control", "control_length", "flags", "received"],
        "formats": ["<u8", "<u4", "<u8", "<u8", "<u8", "<u8", "<i4", "<u4"],
        "offsets": [0, 8, 16, 24, 32, 40, 48, 56],
        "itemsize": 64,
    }
)
"""struct mmsghdr."""

_libc = ctypes.CDLL(None, use_errno=True)


class Batch:
    """Room for `count` datagrams of at most `size` bytes each. One thread.

    payload: (count, size) bytes. addresses: (count,) of ADDRESS: whom to send to, or who sent.
    """

    def __init__(self, count: int, size: int) -> None:
        self.payload: NDArray[np.uint8] = np.zeros((count, size), np.uint8)
        self.addresses = np.zeros(count, ADDRESS)
        self.addresses["family"] = socket.AF_INET
        self._control = np.zeros((count, _STAMP_BYTES), np.uint8)
        self._vectors = np.zeros(count, _VECTOR)
        self._headers = np.zeros(count, _HEADER)
        self._vectors["base"] = self.payload.ctypes.data + np.arange(count, dtype=np.uint64) * np.uint64(size)
        self._headers["name"] = self.addresses.ctypes.data + np.arange(count, dtype=np.uint64) * np.uint64(16)
        self._headers["vector"] = self._vectors.ctypes.data + np.arange(count, dtype=np.uint64) * np.uint64(16)
        self._headers["vectors"] = 1
        self._headers["name_length"] = 16
        self._count, self._size = count, size

    def send(self, endpoint: socket.socket, count: int) -> int:
        """The first `count` datagrams, all of full size. Returns how many the kernel took before its buffer was full.
        Raises OSError for anything else."""
        self._vectors["length"][:count] = self._size
        sent = 0
        while sent < count:
            at = self._headers.ctypes.data + sent * 64
            done = _libc.sendmmsg(endpoint.fileno(), ctypes.c_void_p(at), count - sent, _DONT_WAIT)
            if done < 0:
                if ctypes.get_errno() in (errno.EAGAIN, errno.ENOBUFS):
                    break
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            sent += done
        return sent

    def receive(self, endpoint: socket.socket) -> int:
        """What waits in the socket, at most `count`; 0 when nothing does. `stamps` and `lengths` tell of them."""
        self._vectors["length"] = self._size
        self._headers["name_length"] = 16
        self._headers["control"] = self._control.ctypes.data + np.arange(self._count, dtype=np.uint64) * np.uint64(
            _STAMP_BYTES
        )
        self._headers["control_length"] = _STAMP_BYTES
        done = _libc.recvmmsg(
            endpoint.fileno(), ctypes.c_void_p(self._headers.ctypes.data), self._count, _DONT_WAIT, None
        )
        if done < 0:
            if ctypes.get_errno() == errno.EAGAIN:
                return 0
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return int(done)

    def lengths(self, count: int) -> NDArray[np.uint32]:
        """Bytes of each of the last received datagrams."""
        return np.array(self._headers["received"][:count], np.uint32)

    def stamps(self, count: int) -> NDArray[np.int64]:
        """When the kernel took each of the last received datagrams: nanoseconds of CLOCK_REALTIME. Its own stamp, so
        that it does not count how long this process waited for its turn."""
        clock = self._control[:count, 16:].copy().view("<i8").reshape(count, 2)
        return np.asarray(clock[:, 0] * 1_000_000_000 + clock[:, 1], np.int64)


def endpoint(host: str, port: int = 0, buffer_bytes: int = 8 << 20) -> socket.socket:
    """A UDP socket that stamps arrivals, with a buffer as large as the system lets us have."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for option in (33, socket.SO_RCVBUF):  # SO_RCVBUFFORCE is for root; SO_RCVBUF is bounded by net.core.rmem_max
        try:
            made.setsockopt(socket.SOL_SOCKET, option, buffer_bytes)
            break
        except PermissionError:
            continue
    made.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    made.bind((host, port))
    made.setblocking(False)
    return made
