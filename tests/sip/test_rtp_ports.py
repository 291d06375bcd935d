"""Whether a range has room for one more call: two ports in a row, the first of them even."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from sipserver.sip.rtp_ports import RtpPorts
from tests.harness.fleet import port_block


def test_a_pair_is_needed() -> None:
    first, last = port_block(4)
    ports = RtpPorts("127.0.0.1", first, last)
    with ExitStack() as strangers:
        assert ports.any_free()
        for port, room in ((first + 1, True), (first + 2, False)):
            stranger = strangers.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            stranger.bind(("127.0.0.1", port))
            assert ports.any_free() is room
    assert ports.any_free()
