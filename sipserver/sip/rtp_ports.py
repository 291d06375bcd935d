"""Whether there are ports and descriptors for one more call's sound, asked before PJSIP opens them.

PJSIP answers an INVITE for which it finds none with a bare 500 and tells nobody: the edge could not know that another
cell would take the call. Refuses to hold any: PJSIP chooses its own.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack

from sipserver.open_files import SELECT_FILES

SPARE = 16
"""So many of the lowest descriptors stay free: other threads open files between the question and PJSIP."""


class RtpPorts:
    """The range of a cell: RTP on even ports, RTCP on the next. Any thread; opens and closes sockets to find out."""

    def __init__(self, host: str, first: int, last: int) -> None:
        self._host, self._pairs = host, range(first, last, 2)
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET

    def any_free(self) -> bool:
        return any(self._is_free(port) and self._is_free(port + 1) for port in self._pairs)

    def any_files(self) -> bool:
        """Whether the next sockets have descriptors for which PJSIP's select(2) can wait."""
        with ExitStack() as probes:
            try:
                found = [probes.enter_context(socket.socket(self._family, socket.SOCK_DGRAM)) for _ in range(2)]
            except OSError:
                return False
            return all(probe.fileno() < SELECT_FILES - SPARE for probe in found)

    def _is_free(self, port: int) -> bool:
        with socket.socket(self._family, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((self._host, port))
            except OSError:
                return False
        return True
