"""Whether a range has room for one more call: two ports in a row, the first of them even."""

from __future__ import annotations

import os
import resource
import socket
from contextlib import ExitStack

from sipserver.open_files import SELECT_FILES
from sipserver.sip.rtp_ports import SPARE, RtpPorts
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


def test_descriptors_that_select_knows_are_needed() -> None:
    ports = RtpPorts("127.0.0.1", *port_block(4))
    assert ports.any_files()
    with ExitStack() as stack:
        held = [stack.enter_context(open(os.devnull, "rb"))]
        while held[-1].fileno() < SELECT_FILES - SPARE - 1:
            held.append(stack.enter_context(open(os.devnull, "rb")))
        assert not ports.any_files()
        held[-1].close()
        assert not ports.any_files(), "one is not enough"
        held[-2].close()
        assert ports.any_files()


def test_no_descriptor_at_all() -> None:
    ports = RtpPorts("127.0.0.1", *port_block(4))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, before[1]))
    try:
        assert not ports.any_files()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
