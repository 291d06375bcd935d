"""Disks that are full and a log that nobody reads, under load: calls go on, and what is missing is told."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sipserver.log import MOST_LINES
from tests.faults.fleet_calls import GAP_MS, PLAN, calling, complete
from tests.harness.fleet import FleetProcess, merged
from tests.harness.talk import Talker

pytestmark = pytest.mark.peers

OVERRIDES = {"fleet": {"heartbeat_s": 0.3, "hang_s": 3}, "bus": {"lease_s": 2}}
SIZE_KB = 128
"""Two seconds of stereo at 16 kHz."""
PIPE_BYTES = 4096
QUESTIONS = 2 * MOST_LINES // 8
"""So many OPTIONS, of eight lines each, are more than a process keeps for a log that does not move."""
FLOOD_S = 60.0


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of SIZE_KB; only root may mount one."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_KB}k", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """To the last byte; the file that did it."""
    file = folder / "full"
    with file.open("wb", buffering=0) as stream, suppress(OSError):
        while stream.write(b"x" * 4096):
            pass
    return file


def test_full_disks_cost_recordings_and_nothing_else(tmp_path: Path) -> None:
    """First the recordings' disk; then also that of the spool, while Redis is away."""
    with small_disk(tmp_path / "recordings") as recordings, small_disk(tmp_path / "spool") as spool:
        overrides = merged(OVERRIDES, {"calls": {"recordings": str(recordings)}, "bus": {"spool": str(spool)}})
        with FleetProcess(tmp_path / "fleet", {"acme.yaml": PLAN}, overrides, calls=8) as fleet:
            with Talker(fleet.sip_port).call() as phone:
                since_ns = time.perf_counter_ns()
                fill(recordings)
                fill(spool)
                fleet.redis.kill()
                with calling(fleet, tmp_path / "load", total=8, at_once=4) as traffic:
                    pass
                phone.echo_for(1)
                fleet.redis.start()
                fleet.await_that(lambda now: now["bus_up"] and now["records_behind"] == 0, "the bus")
                traffic.assert_good()
                assert phone.longest_gap_ms(since_ns) <= GAP_MS
                phone.bye()
            found = fleet.await_records(9)
    assert all(map(complete, found)), [(each.reason, each.kinds) for each in found if not complete(each)]
    assert {each.reason for each in found} == {"caller_hangup"}
    assert {each.recording_status for each in found} == {"failed"}
    assert all(each.of("recording.failed") for each in found)


@contextmanager
def stuck_log(folder: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    """A FIFO that nobody reads: its descriptor, and what to put before the command whose stderr it shall be."""
    file = folder / "log"
    os.mkfifo(file)
    pipe = os.open(file, os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        yield pipe, ("sh", "-c", f'exec "$@" 2>"{file}"', "sh")
    finally:
        os.close(pipe)


def flood(port: int, count: int) -> None:
    """OPTIONS that a cell writes lines about, a thousand a second at most, and each when the one before is answered:
    those that a busy machine loses are asked again."""
    deadline = time.monotonic() + FLOOD_S
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.1", 0))
        sender.settimeout(0.5)
        own = sender.getsockname()[1]
        while count:
            assert time.monotonic() < deadline, f"{count} OPTIONS are not answered"
            unique = uuid.uuid4().hex
            message = (
                f"OPTIONS sip:127.0.0.1:{port} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{own};branch=z9hG4bK{unique}\r\n"
                f"Max-Forwards: 70\r\nFrom: <sip:flood@127.0.0.1>;tag={unique}\r\nTo: <sip:127.0.0.1>\r\n"
                f"Call-ID: {unique}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
            )
            sender.sendto(message.encode(), ("127.0.0.1", port))
            with suppress(TimeoutError):
                sender.recv(4096)
                count -= 1
            time.sleep(0.001)


def test_a_log_that_nobody_reads_holds_up_no_call(tmp_path: Path) -> None:
    overrides = merged(OVERRIDES, {"log": {"level": "debug"}, "sip": {"pjsip_log_level": 5}})
    with stuck_log(tmp_path) as (pipe, prefix):
        fleet = FleetProcess(tmp_path / "fleet", {"acme.yaml": PLAN}, overrides, calls=8, prefix=prefix)
        with fleet, Talker(fleet.sip_port).call() as phone:
            since_ns = time.perf_counter_ns()
            with calling(fleet, tmp_path / "load", total=12, at_once=4) as traffic:
                flood(fleet.of("cell")[0].port, QUESTIONS)
            traffic.assert_good()
            phone.echo_again()
            assert phone.longest_gap_ms(since_ns) <= GAP_MS
            assert phone.bye().code == 200
            told = dropped(pipe)
            found = fleet.await_records(13)
    assert told > 0
    assert all(map(complete, found))


def dropped(pipe: int, timeout_s: float = 20) -> int:
    """Read the log until a line tells how many others are missing."""
    deadline, rest = time.monotonic() + timeout_s, b""
    while time.monotonic() < deadline:
        try:
            rest += os.read(pipe, 65_536)
        except BlockingIOError:
            time.sleep(0.005)
            continue
        *lines, rest = rest.split(b"\n")
        for line in lines:
            if b"lines dropped" in line:
                return int(json.loads(line)["lines"])
    raise AssertionError("no line tells of dropped ones")
