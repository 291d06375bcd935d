"""Whether there are ports for one more call's sound, asked before PJSIP opens them.

PJSIP answers an INVITE for which it finds none with a bare 500 and tells nobody: the edge could not know that another
cell would take the call. Refuses to hold ports: PJSIP chooses its own.
"""

from __future__ import annotations

import socket


class RtpPorts:
    """The range of a cell: RTP on even ports, RTCP on the next. Any thread; opens and closes two sockets a question."""

    def __init__(self, host: str, first: int, last: int) -> None:
        self._host, self._pairs = host, range(first, last, 2)
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET

    def any_free(self) -> bool:
        return any(self._is_free(port) and self._is_free(port + 1) for port in self._pairs)

    def _is_free(self, port: int) -> bool:
        with socket.socket(self._family, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((self._host, port))
            except OSError:
                return False
        return True
