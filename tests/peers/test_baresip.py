"""A real softphone, baresip, talks to the server: it is heard and hears, presses digits, holds and resumes."""

from __future__ import annotations

import time
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.harness.records import Record, ended
from tests.harness.server import ServerProcess
from tests.peers import rtp
from tests.peers.baresip import Baresip
from tests.peers.plan import PLAN, PROMPT_HZ, write_prompt, write_wav

pytestmark = pytest.mark.peers

SAID_HZ = 1000.0
FRAME = 160


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    process = ServerProcess(tmp_path_factory.mktemp("baresip-server"), {"peers.yaml": PLAN})
    write_prompt(process.dialplans)
    with process:
        yield process


@pytest.fixture
def softphone(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Baresip]:
    write_wav(tmp_path / "said.wav", rtp.tone((SAID_HZ,), 20_000, 8000), 8000)
    with Baresip(tmp_path, codec=getattr(request, "param", "PCMU")) as phone:
        yield phone


def dial(softphone: Baresip, server: ServerProcess, user: str) -> None:
    assert softphone.command("dial", f"sip:{user}@127.0.0.1:{server.sip_port}")["ok"]
    softphone.wait_for("CALL_ESTABLISHED")


def heard(softphone: Baresip) -> rtp.Signal:
    with wave.open(str(softphone.heard)) as file:
        assert file.getframerate() == 8000
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def last(server: ServerProcess) -> Record:
    """The call that began last. baresip chooses its Call-ID itself."""
    return ended(server.database)[-1]


@pytest.mark.parametrize("softphone", ["PCMU", "PCMA"], indirect=True)
def test_the_echo_comes_back_whole(softphone: Baresip, server: ServerProcess, request: pytest.FixtureRequest) -> None:
    dial(softphone, server, "echo")
    time.sleep(3)
    softphone.command("hangup")
    softphone.wait_for("CALL_CLOSED")
    samples = heard(softphone)
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    levels = np.sqrt(np.mean(np.square(frames, dtype=np.float64), axis=1))
    voiced = np.flatnonzero(levels > 2000)
    assert len(voiced) > 100
    assert rtp.strongest_hz(samples, 8000) == pytest.approx(SAID_HZ, abs=5)
    gaps = voiced[-1] - voiced[0] + 1 - len(voiced)
    assert gaps <= 2, levels.round().tolist()
    record = last(server)
    assert record.reason == "caller_hangup"
    assert record.of("media.started")[0]["codec"] == request.node.callspec.params["softphone"]
    assert record.of("media.rtp")[-1]["lost"] == 0


def test_digits_choose_from_the_menu(softphone: Baresip, server: ServerProcess) -> None:
    dial(softphone, server, "menu")
    for digit in "427":
        softphone.command("sndcode", digit)
        time.sleep(0.3)
    softphone.wait_for("CALL_CLOSED")
    record = last(server)
    assert record.reason == "dialplan_hangup"
    assert "".join(event["digit"] for event in record.of("digit.received")) == "427"
    assert rtp.strongest_hz(heard(softphone)[-4000:], 8000) == pytest.approx(PROMPT_HZ, abs=15)


def test_hold_and_resume(softphone: Baresip, server: ServerProcess) -> None:
    dial(softphone, server, "echo")
    time.sleep(0.8)
    assert softphone.command("hold")["ok"]
    time.sleep(0.8)
    assert softphone.command("resume")["ok"]
    time.sleep(0.8)
    softphone.command("hangup")
    softphone.wait_for("CALL_CLOSED")
    record = last(server)
    assert record.reason == "caller_hangup"
    kinds = [kind for kind in record.kinds if kind in ("leg.held", "leg.resumed")]
    assert kinds == ["leg.held", "leg.resumed"]
