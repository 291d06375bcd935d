"""A telephone, a whole server, and a bot of Pipecat's own parts behind the step `stream`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.test_gatherings import LOUD, until
from tests.harness.phone import Phone, tone
from tests.harness.records import ended
from tests.harness.server import ServerProcess
from tests.servers.pipecat import pipecat_echo

pytestmark = pytest.mark.peers


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with pipecat_echo(tmp_path_factory.mktemp("pipecat") / "pipecat.log") as (port, _):
        yield port


def plan(port: int, path: str, protocol: str) -> str:
    return f"""
tenant: acme
flows:
  main:
    - stream:
        url: "ws://127.0.0.1:{port}/{path}"
        protocol: {protocol}
        parameters: {{caller: "{{from}}"}}
        on: {{done: bye, failed: bye}}
  bye: [hangup]
routes:
  - match: {{to: bot}}
    flow: main
"""


def is_loud(phone: Phone, since: int) -> bool:
    return any(packet.level > LOUD for packet in phone.received[since:])


@pytest.mark.parametrize(("path", "protocol"), [("ws", "twilio"), ("vonage", "vonage")])
def test_a_caller_hears_themselves_through_pipecat(echo: int, tmp_path: Path, path: str, protocol: str) -> None:
    server = ServerProcess(tmp_path, {"acme.yaml": plan(echo, path, protocol)})
    with server, Phone(server.sip_port) as phone:
        assert phone.invite("bot").code == 200
        phone.start_media()
        until(lambda: len(phone.received) > 25, "media")
        assert not is_loud(phone, 0)
        for _ in range(2):  # two words, and silence between them: it is the caller's sound, not a tone of its own
            began = len(phone.received)
            phone.say(tone(600))
            until(lambda began=began: is_loud(phone, began), "the echo")  # type: ignore[misc]
            until(lambda: not is_loud(phone, len(phone.received) - 5), "its end")
        assert pitch_hz(phone.heard()) == pytest.approx(440, abs=5)
        assert phone.bye().code == 200
        (record,) = ended(server.database)
    assert record.reason == "caller_hangup"
    (connected,), (gone,) = record.of("bot.connected"), record.of("bot.disconnected")
    assert connected["protocol"] == protocol
    assert gone["by"] == "us"
    assert gone["heard_ms"] > 1000


def pitch_hz(samples: np.ndarray) -> float:
    """The strongest frequency of the loudest half second; 8 kHz."""
    frames = samples[: len(samples) // 4000 * 4000].reshape(-1, 4000).astype(np.float64)
    loudest = frames[np.argmax((frames**2).sum(axis=1))]
    spectrum = np.abs(np.fft.rfft(loudest * np.hanning(4000)))
    return float(np.argmax(spectrum) * 2)


def test_a_pipecat_that_dies_takes_the_branch(tmp_path: Path) -> None:
    with ExitStack() as life:
        port, _ = life.enter_context(pipecat_echo(tmp_path / "pipecat.log"))
        server = ServerProcess(tmp_path / "server", {"acme.yaml": plan(port, "ws", "twilio")})
        with server, Phone(server.sip_port) as phone:
            assert phone.invite("bot").code == 200
            phone.start_media()
            phone.say(tone(20_000))
            until(lambda: is_loud(phone, 0), "the echo")
            life.close()
            until(phone.ended.is_set, "the end of the call")
            (record,) = ended(server.database)
    assert record.reason == "dialplan_hangup"
    assert [step["outcome"] for step in record.of("step.left")] in (["done", "done"], ["failed", "done"])
    assert record.of("bot.disconnected")[0]["by"] in ("bot", "fault")
