"""What systemd wants to hear from a service: READY=1, STOPPING=1, RELOADING=1, STATUS=..., WATCHDOG=1.

Owns the datagram on NOTIFY_SOCKET (sd_notify(3), no library needed) and the watchdog that feeds only a server whose
parts all move. Outside systemd everything here does nothing and says so by its result.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Mapping

from sipserver.log import logger

Notify = Callable[[str], bool]


def notify(state: str) -> bool:
    """Send one state string (`READY=1`, lines for several) to systemd. Never blocks, never raises; any thread.

    False when NOTIFY_SOCKET is not set, or when nobody takes the datagram.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]  # an abstract socket (unix(7)) is written with @ in the environment
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.setblocking(False)
            out.connect(address)
            out.send(state.encode())
    except OSError:
        return False
    return True


def ready(status: str = "") -> bool:
    """The server answers calls."""
    return notify("READY=1" + (f"\nSTATUS={status}" if status else ""))


def reloading() -> bool:
    """SIGHUP came; `ready` must follow. MONOTONIC_USEC is what `Type=notify-reload` asks for (systemd 253)."""
    return notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping(status: str = "") -> bool:
    """New calls are refused, running ones go on."""
    return notify("STOPPING=1" + (f"\nSTATUS={status}" if status else ""))


def extend_timeout(seconds: float) -> bool:
    """Ask for more time to start, reload or stop, counted from now (sd_notify(3), EXTEND_TIMEOUT_USEC)."""
    return notify(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")


def watchdog_interval_s() -> float | None:
    """Half of WatchdogSec, as sd_watchdog_enabled(3) advises; None when this process is not watched."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    watched = os.environ.get("WATCHDOG_PID", "")
    if not microseconds.isdecimal() or int(microseconds) == 0 or (watched and watched != str(os.getpid())):
        return None
    return int(microseconds) / 2_000_000


def moved(counter: Callable[[], int]) -> Callable[[], bool]:
    """A check out of a counter that a thread increases: true when it differs from the last time it was asked."""
    last = counter()

    def check() -> bool:
        nonlocal last
        before, last = last, counter()
        return last != before

    return check


class Watchdog:
    """Feeds WATCHDOG=1 every `interval_s` for as long as every part has moved since the last feed.

    checks: by the name of the part, a callable that tells whether the part has ticked since it was last asked. They run
    on the loop and must not block. The loop itself is checked by the fact that this coroutine runs.
    """

    def __init__(self, interval_s: float, checks: Mapping[str, Callable[[], bool]], send: Notify = notify) -> None:
        self._interval_s, self._checks, self._send = interval_s, dict(checks), send
        self._moved: set[str] = set()
        self._log = logger("watchdog")
        self.fed = 0
        """How often systemd was told that all is well."""

    def look(self) -> bool:
        """Ask every check once; feed if all have ticked since the last feed. If not, the log names those that stand."""
        self._moved |= {name for name, check in self._checks.items() if check()}
        standing = sorted(self._checks.keys() - self._moved)
        if standing:
            self._log.warning("not fed: parts of the server stand still", parts=standing)
            return False
        self._moved.clear()
        self.fed += 1
        self._send("WATCHDOG=1")
        return True

    async def run(self) -> None:
        """Look for ever. Cancel it to stop."""
        while True:
            await asyncio.sleep(self._interval_s)
            self.look()
