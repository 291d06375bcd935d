"""More HTTP clients than select(2) knows files, in the process that has the calls: those go on, and new ones come."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sipserver.open_files import SELECT_FILES
from tests.fakes.until import wait_until
from tests.harness.phone import Phone
from tests.harness.server import ServerProcess
from tests.harness.talk import Talker

PLAN = """
tenant: crowd
flows:
  echo: [answer, echo]
routes:
  - match: {to: echo}
    flow: echo
"""
CROWD = 1_200
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
SOUND_S = 2.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "server", {"crowd.yaml": PLAN}) as process:
        yield process
        assert "Traceback" not in process.log()


@pytest.fixture(autouse=True)
def room() -> Iterator[None]:
    """For both ends of the crowd in the tests' own process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8_192, before[1]), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def client(server: ServerProcess, stack: ExitStack) -> socket.socket:
    return stack.enter_context(socket.create_connection(("127.0.0.1", server.http_port), 5))


def served(connection: socket.socket) -> None:
    connection.sendall(GET)
    assert connection.recv(4_096).startswith(b"HTTP/1.1 200")


def descriptors(server: ServerProcess) -> list[int]:
    return [int(name) for name in os.listdir(f"/proc/{server.pid}/fd")]


def test_calls_are_taken_beside_a_crowd_and_the_crowd_goes_with_the_server(server: ServerProcess) -> None:
    low_before = len([number for number in descriptors(server) if number < SELECT_FILES])
    with ExitStack() as stack:
        talk = stack.enter_context(Talker(server.sip_port)).call()
        crowd = [client(server, stack) for _ in range(CROWD)]
        for connection in crowd:
            served(connection)
        numbers = descriptors(server)
        assert len([number for number in numbers if number >= SELECT_FILES]) >= CROWD
        assert len([number for number in numbers if number < SELECT_FILES]) < low_before + 40
        talk.echo_for(SOUND_S)
        newcomer = stack.enter_context(Talker(server.sip_port)).call()
        newcomer.echo_for(SOUND_S)
        for connection in crowd[::100]:
            served(connection)
        assert server.stop() == 0
        for connection in crowd:
            assert connection.recv(1) == b""


def test_a_call_for_which_no_descriptor_is_left_is_refused_as_by_a_full_server(server: ServerProcess) -> None:
    """The limit of open files is as low as select(2)'s, so that the crowd has nowhere else to go."""
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (SELECT_FILES, SELECT_FILES))
    with ExitStack() as stack:
        talk = stack.enter_context(Talker(server.sip_port)).call()
        with ExitStack() as crowd:
            while max(descriptors(server)) < SELECT_FILES - 1:
                served(client(server, crowd))
            with Phone(server.sip_port) as phone:
                refused = phone.invite("echo")
            assert (refused.code, refused.header("X-Sipserver-Refusal")) == (503, "full")
            assert int(refused.header("Retry-After")) > 0
            assert "sockets need descriptors below 1024" in server.log()
            waits = client(server, stack)
            wait_until(lambda: "no new connections for now" in server.log(), "the server says that it is full")
            talk.echo_for(SOUND_S)
        served(waits)
        wait_until(lambda: len(descriptors(server)) < SELECT_FILES // 2, "the server has let the crowd go")
        stack.enter_context(Talker(server.sip_port)).call().echo_for(SOUND_S)
        assert 'refused_total{reason="files"} 1.0' in server.get("/metrics")
