"""sd_notify over real unix datagram sockets, and a watchdog that feeds only what moves."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sipserver import systemd_notify
from sipserver.systemd_notify import Watchdog


class Manager:
    """systemd's end of the notification socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        messages = []
        while True:
            try:
                messages.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return messages

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@sipserver-test-{os.getpid()}"
    listener = Manager(address)
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    yield listener
    listener.close()


def test_life_of_a_service(manager: Manager) -> None:
    assert systemd_notify.ready("answering on 127.0.0.1:5060")
    assert systemd_notify.reloading()
    assert systemd_notify.extend_timeout(1.5)
    assert systemd_notify.stopping("draining")
    ready, reloading, extend, stopping = manager.heard()
    assert ready == "READY=1\nSTATUS=answering on 127.0.0.1:5060"
    state, clock = reloading.split("\n")
    assert state == "RELOADING=1"
    assert int(clock.removeprefix("MONOTONIC_USEC=")) > 0
    assert extend == "EXTEND_TIMEOUT_USEC=1500000"
    assert stopping == "STOPPING=1\nSTATUS=draining"


@pytest.mark.parametrize("address", ["", "relative/path", "/nowhere/at/all", "@nobody-listens-here"])
def test_nobody_listens(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert systemd_notify.ready() is False


def test_interval_is_half_of_what_systemd_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    assert systemd_notify.watchdog_interval_s() == 15
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert systemd_notify.watchdog_interval_s() == 15
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert systemd_notify.watchdog_interval_s() is None


@pytest.mark.parametrize("value", ["", "0", "soon", "-1"])
def test_no_interval(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", value)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    assert systemd_notify.watchdog_interval_s() is None


def test_moved_compares_with_the_last_question() -> None:
    count = 0
    check = systemd_notify.moved(lambda: count)
    assert check() is False
    count = 3
    assert check() is True
    assert check() is False


def test_fed_only_when_every_part_has_ticked_since_the_last_feed(manager: Manager) -> None:
    ticks = {"sip": 0, "media": 0}
    checks = {name: systemd_notify.moved(lambda name=name: ticks[name]) for name in ticks}  # type: ignore[misc]
    watchdog = Watchdog(1, checks)
    assert watchdog.look() is False
    ticks["sip"] += 1
    assert watchdog.look() is False
    ticks["media"] += 1
    assert watchdog.look() is True, "sip had ticked since the last feed, media now"
    assert watchdog.look() is False, "neither has ticked since"
    assert manager.heard() == ["WATCHDOG=1"]
    assert watchdog.fed == 1


async def test_runs_until_cancelled() -> None:
    fed = asyncio.Event()

    def send(state: str) -> bool:
        assert state == "WATCHDOG=1"
        fed.set()
        return True

    task = asyncio.create_task(Watchdog(0.001, {"loop": lambda: True}, send).run())
    async with asyncio.timeout(5):
        await fed.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
