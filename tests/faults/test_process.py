"""The process itself: killed in a call, started twice, asked to stop, given a broken dialplan."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import wave
from pathlib import Path

import numpy as np
import pytest

from tests.fakes.until import wait_until
from tests.harness.phone import Phone, tone
from tests.harness.records import ended, records
from tests.harness.server import ROOT, ServerProcess
from tests.peers.rtp import strongest_hz

PLAN = """
tenant: process
flows:
  record: [answer, record, echo]
  echo: [answer, echo]
  refuse: [hangup]
routes:
  - match: {to: record}
    flow: record
  - match: {to: echo}
    flow: echo
  - match: {to: new}
    flow: refuse
"""

HZ = 1000.0
START_S = 120
"""A server that starts, on a machine that does much else."""


def test_killed_in_a_call(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, {"process.yaml": PLAN})
    with server:
        with Phone(server.sip_port) as phone:
            assert phone.invite("record").code == 200
            phone.say(tone(3000, HZ))
            time.sleep(3)
            server.kill()
            phone.ended.set()
        (open_record,) = records(server.database, phone.call_id)
        assert not open_record.reason
        server.start()
        (record,) = records(server.database, phone.call_id)
        assert record.reason == "crash"
        assert record.kinds[-1] == "call.ended"
        with wave.open(record.recording) as file:
            assert (file.getnchannels(), file.getframerate()) == (2, 16_000)
            samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).reshape(-1, 2)
        assert len(samples) > 16_000
        assert strongest_hz(samples[:, 0], 16_000) == pytest.approx(HZ, abs=10)
        with Phone(server.sip_port) as phone:
            assert phone.invite("echo").code == 200


@pytest.mark.parametrize("taken", ["sip.port", "http.port"])
def test_a_second_server_on_the_same_port_says_why_it_does_not_start(tmp_path: Path, taken: str) -> None:
    with ServerProcess(tmp_path / "first", {"process.yaml": PLAN}) as first:
        second = ServerProcess(tmp_path / "second", {"process.yaml": PLAN})
        mine, theirs = (second.sip_port, first.sip_port) if taken == "sip.port" else (second.http_port, first.http_port)
        second.settings_file.write_text(second.settings_file.read_text().replace(f"port: {mine}", f"port: {theirs}"))
        command = [sys.executable, "-m", "sipserver", "run", "--config", str(second.settings_file)]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=START_S, check=False)
        assert ran.returncode not in (0, -6, -11)
        assert str(theirs) in ran.stdout + ran.stderr
        assert "in use" in (ran.stdout + ran.stderr).lower()
        assert "Traceback" not in ran.stderr
        with Phone(first.sip_port) as phone:
            assert phone.invite("echo").code == 200


def test_asked_to_stop_it_waits_for_the_call_and_then_goes(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, {"process.yaml": PLAN}, {"calls": {"drain_s": 60}})
    with server, Phone(server.sip_port) as phone:
        assert phone.invite("echo").code == 200
        server.signal(signal.SIGTERM)
        wait_until(lambda: not server.takes_calls(), "it takes no calls")
        with Phone(server.sip_port) as other:
            assert other.invite("echo").code == 503
        assert not phone.ended.is_set()
        assert phone.bye().code == 200
        assert server.wait(10) == 0
    assert {record.reason for record in ended(server.database, phone.call_id)} == {"caller_hangup"}


def test_asked_twice_to_stop_it_ends_the_call_at_once(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, {"process.yaml": PLAN}, {"calls": {"drain_s": 60}})
    with server, Phone(server.sip_port) as phone:
        assert phone.invite("echo").code == 200
        server.signal(signal.SIGTERM)
        wait_until(lambda: not server.takes_calls(), "it takes no calls")
        with Phone(server.sip_port) as other:
            assert other.invite("echo").code == 503
        server.signal(signal.SIGTERM)
        assert phone.ended.wait(5)
        assert server.stop(10) == 0
    assert {record.reason for record in ended(server.database, phone.call_id)} == {"drain"}


def test_a_broken_dialplan_never_replaces_a_good_one(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, {"process.yaml": PLAN}) as server, Phone(server.sip_port) as phone:
        plan = server.dialplans / "process.yaml"
        assert phone.invite("new").code == 603
        plan.write_text(PLAN.replace("refuse: [hangup]", "refuse: [{hangup: {kode: 486}}]"))
        server.signal(signal.SIGHUP)
        wait_until(lambda: "kode" in server.log(), "the mistake is told")
        assert "process.yaml:6" in server.log()
        assert phone.invite("new").code == 603
        plan.write_text(PLAN.replace("refuse: [hangup]", "refuse: [{hangup: {code: 486}}]"))
        server.signal(signal.SIGHUP)
        wait_until(lambda: phone.invite("new").code == 486, "the new plan holds")
