"""Malformed and odd SIP and SDP: a proper answer or silence, and the process goes on answering calls."""

from __future__ import annotations

import re
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.faults.torture import BAD_SDP, BROKEN, ODD_BUT_VALID, SILENCE, Torture, message
from tests.harness.phone import Phone
from tests.harness.server import ServerProcess

PLAN = """
tenant: torture
flows:
  refuse: [hangup]
  echo: [answer, echo]
routes:
  - match: {to: refuse}
    flow: refuse
  - match: {to: echo}
    flow: echo
"""

ANSWER_S = 5.0
SILENCE_S = 0.3

_OPTIONS = (
    "OPTIONS sip:127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/{transport} 127.0.0.1:{port};branch=z9hG4bK{unique};rport\r\n"
    "Max-Forwards: 70\r\nFrom: <sip:probe@127.0.0.1>;tag={unique}\r\nTo: <sip:127.0.0.1>\r\nCall-ID: {unique}\r\n"
    "CSeq: 1 OPTIONS\r\nContact: <sip:probe@127.0.0.1:{port}>\r\nContent-Length: 0\r\n\r\n"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("torture"), {"torture.yaml": PLAN}) as process:
        yield process
        assert process.process is not None
        assert process.process.poll() is None
        assert "Traceback" not in process.log()


class Sender:
    """A UDP socket that sends anything and reads final answers."""

    def __init__(self, server_port: int) -> None:
        self._server = ("127.0.0.1", server_port)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])

    def send(self, payload: bytes) -> None:
        self._socket.sendto(payload, self._server)

    def final(self, wait_s: float, call_id: str = "") -> int:
        """The first final code that arrives (with this Call-ID, if given); SILENCE if none does."""
        deadline = time.monotonic() + wait_s
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                text = self._socket.recv(65_535).decode(errors="replace")
            except TimeoutError:
                break
            status = re.match(r"SIP/2\.0 ([2-6]\d\d) ", text)
            if status and call_id in text:
                return int(status.group(1))
        return SILENCE

    def alive(self, within_s: float = ANSWER_S) -> bool:
        """Does the server answer OPTIONS? Sent again every second: a burst loses datagrams (RFC 3261, 17.1.2.2)."""
        unique, deadline_s = uuid.uuid4().hex, time.monotonic() + within_s
        while time.monotonic() < deadline_s:
            self.send(_OPTIONS.format(port=self.port, unique=unique, transport="UDP").encode())
            if self.final(1.0, unique) == 200:
                return True
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def sender(server: ServerProcess) -> Iterator[Sender]:
    sender = Sender(server.sip_port)
    yield sender
    sender.close()


@pytest.mark.parametrize("torture", ODD_BUT_VALID, ids=lambda torture: torture.name)
def test_an_odd_message_is_understood(torture: Torture, sender: Sender) -> None:
    unique = uuid.uuid4().hex
    sender.send(torture.filled(sender.port, unique))
    assert sender.final(ANSWER_S, unique) in torture.answers
    assert sender.alive()


@pytest.mark.parametrize("torture", [*BROKEN, *BAD_SDP], ids=lambda torture: torture.name)
def test_a_broken_message_is_refused_or_ignored(torture: Torture, sender: Sender) -> None:
    sender.send(torture.filled(sender.port, uuid.uuid4().hex))
    assert sender.final(SILENCE_S) in torture.answers
    assert sender.alive()


@settings(derandomize=True, max_examples=150, database=None, suppress_health_check=list(HealthCheck))
@given(
    edits=st.lists(
        st.tuples(
            st.floats(0, 1),
            st.integers(0, 12),
            st.one_of(
                st.binary(max_size=12),
                st.sampled_from([b"\r\n", b":", b"\0", b";", b"<", b'"', b"," * 50, b"%", b"4294967296"]),
            ),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_mutations_of_a_valid_message_do_no_harm(server: ServerProcess, edits: list[tuple[float, int, bytes]]) -> None:
    sender = Sender(server.sip_port)
    try:
        text = bytearray(Torture("", message(), frozenset()).filled(sender.port, uuid.uuid4().hex))
        for where, cut, insert in edits:
            at = int(where * len(text))
            text[at : at + cut] = insert
        sender.send(bytes(text))
        assert sender.alive()
    finally:
        sender.close()


def test_every_truncation_of_a_valid_message_does_no_harm(sender: Sender) -> None:
    whole = Torture("", message(), frozenset()).filled(sender.port, uuid.uuid4().hex)
    for length in range(1, len(whole), 7):
        sender.send(whole[:length])
    assert sender.alive()


# --- streams ----------------------------------------------------------------------------------------------------------


def tcp(server: ServerProcess) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.sip_port), ANSWER_S)


def tcp_alive(server: ServerProcess) -> bool:
    unique = uuid.uuid4().hex
    with tcp(server) as stream:
        port = stream.getsockname()[1]
        stream.sendall(_OPTIONS.format(port=port, unique=unique, transport="TCP").encode())
        return stream.recv(4096).startswith(b"SIP/2.0 200")


def tcp_serves(server: ServerProcess) -> bool:
    with suppress(OSError):
        return tcp_alive(server)
    return False


@pytest.mark.parametrize(
    "stream",
    [
        bytes(range(256)) * 40,
        b"\r\n" * 5000,
        b"INVITE sip:refuse@127.0.0.1 SIP/2.0\r\nX-Endless: " + b"e" * 200_000,
        message(length="").replace(b"UDP", b"TCP"),
        message(length="-5").replace(b"UDP", b"TCP"),
        message(length="4000000000").replace(b"UDP", b"TCP"),
    ],
    ids=["random", "only line ends", "an endless header", "no length", "a negative length", "a length of 4 GB"],
)
def test_a_broken_stream_does_no_harm(stream: bytes, server: ServerProcess) -> None:
    with tcp(server) as broken:
        with suppress(OSError):  # refused half-way: right
            broken.sendall(stream)
        assert tcp_alive(server)
    assert tcp_alive(server)


def test_many_half_sent_messages_on_streams_hold_nobody_up(server: ServerProcess) -> None:
    streams = [tcp(server) for _ in range(20)]
    try:
        for stream in streams:
            stream.sendall(message()[:200])
        assert tcp_alive(server)
    finally:
        for stream in streams:
            stream.close()


# --- bursts -----------------------------------------------------------------------------------------------------------


def test_a_burst_of_calls_that_are_refused_does_no_harm(server: ServerProcess, sender: Sender) -> None:
    """PJSIP aborts the process when sockets come and go faster than its table of handles frees them."""
    for _ in range(400):
        sender.send(Torture("", message(), frozenset()).filled(sender.port, uuid.uuid4().hex))
        time.sleep(0.002)
    assert sender.alive(within_s=30)  # it works off the calls first


def test_a_burst_of_connections_does_no_harm(server: ServerProcess) -> None:
    for _ in range(200):
        tcp(server).close()
        time.sleep(0.002)
    assert tcp_alive(server)


def test_a_hundred_idle_connections_do_no_harm(server: ServerProcess, sender: Sender) -> None:
    streams = [tcp(server) for _ in range(100)]
    try:
        assert sender.alive()
    finally:
        for stream in streams:
            stream.close()
    deadline = time.monotonic() + 10
    while not tcp_serves(server):
        assert time.monotonic() < deadline


def test_a_good_call_after_all_that(server: ServerProcess, sender: Sender) -> None:
    assert sender.alive()
    with Phone(server.sip_port) as phone:
        assert phone.invite("echo").code == 200
        assert phone.bye().code == 200
