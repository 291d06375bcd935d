"""Numbers of descriptors: sockets that leave the low ones, and the limit that a start raises."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sipserver.open_files import SELECT_FILES, high_socket, lifted, lifted_file


@pytest.fixture
def limit() -> Iterator[tuple[int, int]]:
    """Soft and hard, put back after the test."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_lifted_socket_is_the_same_with_a_high_number() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        low = ours.fileno()
        ours.setblocking(False)
        with lifted(ours) as high:
            assert high.fileno() >= SELECT_FILES > low
            assert ours.fileno() == -1
            assert (high.family, high.type, high.gettimeout()) == (socket.AF_UNIX, socket.SOCK_STREAM, 0.0)
            assert fcntl.fcntl(high, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
            theirs.sendall(b"the same")
            assert high.recv(16) == b"the same"
            assert lifted(high) is high
        assert theirs.recv(1) == b"", "nothing holds it any more"


def test_a_connection_that_we_open_is_high() -> None:
    with high_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 1))) as opened:
        assert opened.fileno() >= SELECT_FILES
        assert (opened.family, opened.type) == (socket.AF_INET, socket.SOCK_STREAM)


def test_where_no_high_number_is_permitted_it_stays(limit: tuple[int, int]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (SELECT_FILES, limit[1]))
    with socket.socket() as low:
        number = low.fileno()
        with lifted(low) as same:
            assert same.fileno() == number


def test_a_file_is_lifted_as_sockets_are(tmp_path: Path) -> None:
    low = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    high = lifted_file(low)
    try:
        assert high >= SELECT_FILES > low
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(low)
        assert os.readlink(f"/proc/self/fd/{high}") == str(tmp_path / "file")
        assert lifted_file(high) == high
    finally:
        os.close(high)


def test_when_all_high_numbers_are_taken_it_is_closed(limit: tuple[int, int]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (SELECT_FILES + 1, limit[1]))
    with ExitStack() as stack:
        stack.enter_context(lifted(socket.socket()))
        low = socket.socket()
        with pytest.raises(OSError, match="Too many open files") as problem:
            lifted(low)
        assert problem.value.errno == errno.EMFILE
        assert low.fileno() == -1


STARTS = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from sipserver import log, open_files
log.setup()
open_files.raise_limit()
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(("soft", "hard", "becomes"), [(256, 9_000, 9_000), (256, 1_024, 1_024), (512, 512, 512)])
def test_a_start_raises_the_limit_and_says_when_it_is_low(soft: int, hard: int, becomes: int) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", STARTS.format(soft=soft, hard=hard)],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
    )
    assert int(ran.stdout) == becomes
    lines = [json.loads(line) for line in ran.stderr.splitlines()]
    assert [(line["level"], line["limit"]) for line in lines] == ([("warning", becomes)] if becomes < 4_096 else [])
