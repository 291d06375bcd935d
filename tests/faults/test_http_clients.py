"""HTTP clients that are slow, dead or rude: the others are served, calls are answered, and the server can stop."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from tests.harness.phone import Phone
from tests.harness.server import ServerProcess

PLAN = """
tenant: http
flows:
  echo: [answer, echo]
routes:
  - match: {to: echo}
    flow: echo
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("http"), {"http.yaml": PLAN}) as process:
        yield process
        assert "Traceback" not in process.log()


def client(server: ServerProcess, request: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.http_port), 5)
    connection.sendall(request)
    return connection


def serves(server: ServerProcess) -> None:
    assert json.loads(server.get("/healthz", 3)) == {"status": "ok"}
    with Phone(server.sip_port) as phone:
        assert phone.invite("echo").code == 200


def test_sixty_clients_that_never_finish_their_request(server: ServerProcess) -> None:
    clients = [client(server, b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: ") for _ in range(60)]
    try:
        serves(server)
    finally:
        for connection in clients:
            connection.close()


def test_clients_that_do_not_read_their_answer(server: ServerProcess) -> None:
    clients = [client(server) for _ in range(10)]
    try:
        for connection in clients:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
        serves(server)
    finally:
        for connection in clients:
            connection.close()


def test_clients_that_die_in_the_middle(server: ServerProcess) -> None:
    for request in (
        b"",
        b"GET /met",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /healthz HTTP/1.1\r\nContent-Length: 99\r\n\r\n{",
    ):
        connection = client(server, request)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST instead of FIN
        connection.close()
    serves(server)


@pytest.mark.parametrize(
    ("request_bytes", "codes"),
    [
        (b"nonsense\r\n\r\n", {400}),
        (b"GET /healthz HTTP/9.9\r\n\r\n", {400, 505}),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", {400, 414}),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"h" * 20_000 + b"\r\n\r\n", {400, 431}),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", {400, 404}),
        (b"DELETE /healthz HTTP/1.1\r\nHost: x\r\n\r\n", {405}),
        (b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", {404}),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(60) + b"\r\n\r\n", {400}),
    ],
    ids=["nonsense", "version", "long path", "long header", "path upwards", "method", "path", "TLS"],
)
def test_a_rude_request_gets_a_plain_refusal(server: ServerProcess, request_bytes: bytes, codes: set[int]) -> None:
    with client(server, request_bytes) as connection:
        answer = connection.recv(65_536)
    assert int(answer.split(b" ", 2)[1]) in codes
    assert b"Python" not in answer
    assert b"Traceback" not in answer
    assert json.loads(server.get("/healthz", 3)) == {"status": "ok"}


def test_hanging_clients_do_not_keep_the_server_from_stopping(
    server: ServerProcess, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with ServerProcess(tmp_path_factory.mktemp("stop"), {"http.yaml": PLAN}) as own:
        clients = [
            client(own, b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: "),
            client(own, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"),
        ]
        time.sleep(0.2)
        assert own.stop(12) == 0
        for connection in clients:
            connection.close()
