"""The walk-through of docs/telephony.md, by its own commands: a PBX, the server as its extension 100, three softphones.

Who hears whom is told by the tones that the phones say (700, 800 and 900 Hz) in what the others have recorded.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.harness.server import ROOT, free_port
from tests.peers.baresip import Control
from tests.peers.rtp import strongest_hz

pytestmark = [pytest.mark.peers, pytest.mark.models]

HOME = ROOT / "var/demo-pbx"
CONFIG = "tools/pbx/sipserver.yaml"
PORTS = (5060, 5070, 8080)
WAV_HEAD = 44
HZ = {"201": 700, "202": 800, "203": 900}


def until(condition: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def ask(*words: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / ".venv/bin/sipserver"), *words, "--config", CONFIG]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)


@contextlib.contextmanager
def started(log: Path, *command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**os.environ, **environment}
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@pytest.fixture
def pbx(tmp_path: Path) -> Iterator[None]:
    for port in PORTS:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                pytest.fail(f"port {port} of the demo is taken by somebody else")
    with started(tmp_path / "pbx.log", "tools/demo-pbx"):
        until(lambda: "registered" in ask("trunks").stdout.replace("unregistered", ""), 60)
        yield


@contextlib.contextmanager
def phone(folder: Path, number: str, *options: str) -> Iterator[Control]:
    """A phone of the walk-through, once it is registered. What it heard before is removed."""
    for old in (HOME / f"phone-{number}").glob("dump-*"):
        old.unlink()
    control, log = free_port(socket.SOCK_STREAM), folder / f"phone-{number}.log"
    with started(log, "tools/demo-phone", number, *options, DEMO_PHONE_CONTROL=str(control)):
        until(lambda: "200 OK" in log.read_text(errors="replace"), 20)
        with Control(control, lambda: log.read_text(errors="replace")) as spoken_to:
            yield spoken_to


def heard(number: str) -> NDArray[np.int16]:
    """The last second of what a phone has heard in its latest call; 8 kHz."""
    file = max((HOME / f"phone-{number}").glob("dump-*-dec.wav"), key=lambda each: each.stat().st_mtime)
    samples = file.read_bytes()[WAV_HEAD:]  # it grows: its head does not tell its length yet
    return np.frombuffer(samples[: len(samples) // 2 * 2], np.int16)[-8000:]


def hears(number: str, other: str) -> Callable[[], bool]:
    def now() -> bool:
        samples = heard(number)
        return len(samples) == 8000 and abs(strongest_hz(samples, 8000) - HZ[other]) < 15

    return now


def test_the_walk_through(pbx: None, tmp_path: Path) -> None:
    assert ask("trunks").returncode == 0
    with phone(tmp_path, "202", "--answer") as bob, phone(tmp_path, "203", "--answer"), phone(tmp_path, "201") as alice:
        # the server calls a phone
        dialled = ask("dial", "202")
        assert dialled.returncode == 0, dialled.stdout + dialled.stderr
        assert "answered after" in dialled.stdout
        assert "dialplan_hangup" in dialled.stdout
        bob.wait_for("CALL_CLOSED")

        # a phone calls the server and is connected with another one
        alice.command("dial", "100")
        alice.wait_for("CALL_ESTABLISHED")
        alice.command("sndcode", "1")
        bob.wait_for("CALL_ESTABLISHED")
        until(hears("201", "202"), 20)
        until(hears("202", "201"), 20)

        # it transfers the server to a third one, which takes its place
        alice.command("transfer", "203")
        alice.wait_for("CALL_CLOSED")
        until(hears("202", "203"), 20)
        until(hears("203", "202"), 20)
        bob.command("hangup")

        listed = ask("calls", "list").stdout.splitlines()
        shown = ask("calls", "show", listed[1].split()[0]).stdout
        assert "replaced by sip:203@" in shown
        assert "bridge" in shown

    # an extension that nobody has registered
    nobody = ask("dial", "202")
    assert nobody.returncode == 1
    assert "404" in nobody.stdout
