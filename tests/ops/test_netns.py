"""Test hosts reach each other, and leave nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.harness import netns

pytestmark = pytest.mark.skipif(not netns.available(), reason="needs root and network namespaces")

ECHO = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 5060))
print("ready", flush=True)
while True:
    payload, peer = server.recvfrom(100)
    server.sendto(payload, peer)
"""
ASK = """
import socket, sys, time
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(0.1)
deadline = time.monotonic() + float(sys.argv[2])
answer = b""
while not answer and time.monotonic() < deadline:  # a link that was just plugged in takes no packets for a moment
    try:
        client.sendto(b"hello", (sys.argv[1], 5060))
        answer = client.recv(100)
    except OSError:
        pass
print(answer.decode() or "nothing", end="")
"""


def test_hosts_reach_each_other_until_one_is_cut_off() -> None:
    with netns.Network() as network:
        one, two = network.host("one"), network.host("two")
        server = two.start(sys.executable, "-c", ECHO, stdout=subprocess.PIPE)
        assert server.stdout is not None
        with server.stdout as lines:
            assert lines.readline() == b"ready\n"

        assert one.run(sys.executable, "-c", ASK, two.address, "5") == "hello"
        two.cut()
        assert one.run(sys.executable, "-c", ASK, two.address, "0.3") == "nothing"
        two.plug()
        assert one.run(sys.executable, "-c", ASK, two.address, "5") == "hello"

        assert two.pids() == [server.pid]
        two.kill()
        assert server.wait(5) == -9


def test_nothing_is_left_when_a_test_fails_half_way() -> None:
    network = netns.Network()
    left: list[subprocess.Popen[bytes]] = []

    def fails() -> None:
        with network:
            left.append(network.host("one").start("sleep", "600"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert left[0].wait(5) == -9
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert network.name not in listed
    assert not os.path.exists(f"/run/netns/{network.switch}")
