"""How many files and sockets the process may have open, and which of them get which numbers.

PJSIP waits for its sockets by select(2), which knows no descriptor from SELECT_FILES on (FD_SETSIZE), and the kernel
gives each new socket the lowest number that is free. Owns that sockets of which there may be many, and for which PJSIP
never waits, leave the low numbers. Refuses to know whose they are.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
from typing import Any

from sipserver.log import logger

SELECT_FILES = 1024
MOST = 65_536
"""The limit is not raised beyond this: programs that we start inherit it, and some walk through all numbers."""
ENOUGH = 4_096
"""With fewer the server works, but a crowd of HTTP clients may take what its calls need."""


def reachable() -> int:
    """What `raise_limit` can raise the limit to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    return MOST if soft == resource.RLIM_INFINITY else max(soft, most)


def raise_limit() -> None:
    """Raise the soft limit of open files, for this process and its children, as far as it may go, MOST at most; a line
    in the log where that is too few. At the start of a program.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = reachable()
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    if limit < ENOUGH:
        logger("app").warning(
            "few open files are permitted: many HTTP clients may leave none for calls; raise the hard limit "
            "(ulimit -Hn, LimitNOFILE in the unit)",
            limit=limit,
            wanted=ENOUGH,
        )


def lifted_file(low: int) -> int:
    """The same open file under a number from SELECT_FILES on; `low` is closed. Itself, where the limit of open files
    permits no such number. Any thread. Raises OSError (EMFILE) when they are all taken; `low` is closed then, too.
    """
    if low >= SELECT_FILES:
        return low
    try:
        high = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, SELECT_FILES)
    except OSError as problem:
        if problem.errno == errno.EINVAL:
            return low
        os.close(low)
        raise
    os.close(low)
    return high


def lifted(low: socket.socket) -> socket.socket:
    """`lifted_file` for a socket; use what comes back, not `low`."""
    if low.fileno() >= SELECT_FILES:
        return low
    family, kind, protocol, timeout_s = low.family, low.type, low.proto, low.gettimeout()
    high = socket.socket(family, kind, protocol, fileno=lifted_file(low.detach()))
    high.settimeout(timeout_s)
    return high


def high_socket(address: tuple[Any, ...]) -> socket.socket:
    """`socket_factory` of aiohttp's connectors: of connections of which each call may have some. address: family, type
    and protocol come first, as getaddrinfo(3) gives them. Raises OSError.
    """
    family, kind, protocol = address[:3]
    return lifted(socket.socket(family, kind, protocol))
