"""Test hosts: network namespaces on one switch, so that several machines of a fleet run on one (ip-netns(8)).

Owns namespaces, their links and the processes in them. Refuses to touch the network of the machine itself: the switch
is a bridge in a namespace of its own, and with the namespaces everything is gone. Needs root and iproute2.

    with Network() as network:
        one, two = network.host("one"), network.host("two")
        one.run("ping", "-c1", two.address)

Files and Unix sockets are shared by all hosts: Redis on a Unix socket is reached from each of them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from contextlib import suppress
from typing import Any

_GONE_S = 5.0
_BRIDGE = "switch"


def available() -> bool:
    """Whether this machine lets us have namespaces (root, iproute2, a kernel with them)."""
    name = f"try-{uuid.uuid4().hex[:8]}"
    if os.geteuid() != 0 or _ip("netns", "add", name, check=False) != 0:
        return False
    _ip("netns", "del", name)
    return True


class Host:
    """One machine of a `Network`. address: its IPv4 address; loopback is up too."""

    def __init__(self, network: Network, name: str, address: str) -> None:
        self.name, self.address = name, address
        self.namespace = f"{network.name}-{name}"
        self._switch = network.switch
        self._port = f"p-{name}"[:15]
        self._started: list[subprocess.Popen[bytes]] = []
        _ip("netns", "add", self.namespace)
        _ip(
            "-n",
            self._switch,
            "link",
            "add",
            self._port,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            self.namespace,
        )
        _ip("-n", self._switch, "link", "set", self._port, "master", _BRIDGE, "up")
        _ip("-n", self.namespace, "address", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", self.namespace, "link", "set", device, "up")

    @property
    def prefix(self) -> tuple[str, ...]:
        """Before a command that shall run here. The process that is started becomes the command (no child)."""
        return ("ip", "netns", "exec", self.namespace)

    def start(self, *command: str, **options: Any) -> subprocess.Popen[bytes]:
        """options: those of Popen. The caller waits for it; `Network` kills what is left."""
        started = subprocess.Popen([*self.prefix, *command], **options)
        self._started.append(started)
        return started

    def run(self, *command: str, timeout_s: float = 30) -> str:
        """What it prints. Raises CalledProcessError, TimeoutExpired."""
        return subprocess.run(
            [*self.prefix, *command], capture_output=True, text=True, timeout=timeout_s, check=True
        ).stdout

    def pids(self) -> list[int]:
        listed = subprocess.run(
            ["ip", "netns", "pids", self.namespace], capture_output=True, text=True, check=False
        ).stdout
        return [int(pid) for pid in listed.split()]

    def cut(self) -> None:
        """Pull the plug: its processes live, but nobody reaches them."""
        _ip("-n", self._switch, "link", "set", self._port, "down")

    def plug(self) -> None:
        _ip("-n", self._switch, "link", "set", self._port, "up")

    def kill(self) -> None:
        """As if its power had failed: every process in it dies at once. Returns when they are gone (zombies of the
        caller, who has to wait for them, do not count)."""
        deadline = time.monotonic() + _GONE_S
        for started in self._started:
            if started.poll() is None:
                started.kill()  # it may not have come so far as to be listed
        while alive := [pid for pid in self.pids() if not _zombie(pid)]:
            for pid in alive:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            assert time.monotonic() < deadline, f"processes {alive} on {self.name} do not die"
            time.sleep(0.01)


class Network:
    """A switch and the hosts on it, 10.77.0.0/24. Use as a context manager: leaving it kills every process in every
    namespace and removes them, also after an error half way."""

    def __init__(self) -> None:
        self.name = f"sip{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self.switch = f"{self.name}-switch"
        self.hosts: dict[str, Host] = {}

    def host(self, name: str) -> Host:
        """A new machine. name: short, letters and digits."""
        made = self.hosts[name] = Host(self, name, f"10.77.0.{len(self.hosts) + 1}")
        return made

    def __enter__(self) -> Network:
        _ip("netns", "add", self.switch)
        try:
            _ip("-n", self.switch, "link", "add", _BRIDGE, "type", "bridge", "forward_delay", "0")
            _ip("-n", self.switch, "link", "set", _BRIDGE, "up")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        try:
            for host in self.hosts.values():
                host.kill()
        finally:
            listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
            for line in listed.splitlines():
                if line.split(" ", 1)[0].startswith(f"{self.name}-"):
                    _ip("netns", "del", line.split(" ", 1)[0], check=False)


def _zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] in ("Z", "X")
    except OSError:
        return True


def _ip(*arguments: str, check: bool = True) -> int:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
    return done.returncode
