"""SIPp is called: `sipserver call` against some of the scenarios `uas-*`; the others are in test_sipp_dialled."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.harness.server import ROOT
from tests.peers.plan import PROMPT_MS, write_prompt
from tests.peers.sipp import Sipp

pytestmark = pytest.mark.peers

NAMES = ("uas-200-caller-hangs-up", "uas-200-far-end-hangs-up", "uas-486-busy")


def place(name: str, folder: Path) -> tuple[subprocess.CompletedProcess[str], Sipp]:
    """One call of the built-in caller to a SIPp that echoes RTP. SIPp must have been content."""
    wav = write_prompt(folder)
    with Sipp(name, folder, options=("-rtp_echo",)) as called:
        uri = f"sip:service@127.0.0.1:{called.port}"
        command = [sys.executable, "-m", "sipserver", "call", uri, "--wav", str(wav), "--no-transcribe", "--json"]
        caller = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert called.wait() == 0, called.trace
    return caller, called


def result(caller: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert caller.returncode == 0, caller.stderr
    return dict(json.loads(caller.stdout))


def test_the_caller_is_answered_heard_and_hangs_up(tmp_path: Path) -> None:
    caller, _ = place("uas-200-caller-hangs-up", tmp_path)
    call = result(caller)
    assert call["answered"]
    assert call["codec"] == "PCMA"
    (exchange,) = call["exchanges"]
    assert exchange["heard"]["end_ms"] - exchange["heard"]["start_ms"] == pytest.approx(PROMPT_MS, abs=80)


def test_the_far_end_hangs_up(tmp_path: Path) -> None:
    caller, _ = place("uas-200-far-end-hangs-up", tmp_path)
    call = result(caller)
    assert call["answered"]
    assert not call["exchanges"]


def test_the_far_end_is_busy(tmp_path: Path) -> None:
    caller, called = place("uas-486-busy", tmp_path)
    assert caller.returncode != 0
    assert "486" in caller.stderr
    assert "Traceback" not in caller.stderr
    assert "486 Busy Here" in called.trace
