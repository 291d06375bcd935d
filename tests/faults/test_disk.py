"""The disk is full while a call is recorded: the call goes on, and its record says what happened."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.phone import Phone, tone
from tests.harness.records import ended
from tests.harness.server import ServerProcess, free_range
from tests.peers.rtp import strongest_hz
from tests.peers.three import three

PLAN = """
tenant: disk
flows:
  record: [answer, record, echo]
routes:
  - match: {to: record}
    flow: record
"""

BRIDGE = """
tenant: disk
flows:
  bridge: [{bridge: {to: "202", trunk: here, record: true, on: {failed: end}}}]
routes:
  - flow: bridge
"""

SIZE_KB = 128
"""Two seconds of stereo at 16 kHz."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of SIZE_KB; only root may mount one."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "recordings"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_KB}k", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_the_call_goes_on_when_the_disk_is_full(tmp_path: Path, small_disk: Path) -> None:
    overrides = {"calls": {"recordings": str(small_disk)}}
    with ServerProcess(tmp_path / "server", {"disk.yaml": PLAN}, overrides) as server, Phone(server.sip_port) as phone:
        assert phone.invite("record").code == 200
        phone.say(tone(6000, 1000))
        time.sleep(5)
        assert not phone.ended.is_set()
        assert strongest_hz(phone.heard()[-4000:], 8000) == pytest.approx(1000, abs=10)
        phone.bye()
        (record,) = ended(server.database, phone.call_id)
        assert record.reason == "caller_hangup"
        assert record.recording_status == "failed"
        (failed,) = record.of("recording.failed")
        assert "space" in failed["reason"].lower()
        for left in small_disk.rglob("*.wav"):
            left.unlink()
        assert phone.invite("record").code == 200
        time.sleep(0.5)
        phone.bye()
        (record,) = ended(server.database, phone.call_id)
        assert record.recording_status == "complete"


@pytest.mark.peers
def test_two_go_on_talking_when_the_disk_is_full(tmp_path: Path, small_disk: Path) -> None:
    port = free_range(8)[0]
    trunk = {
        "name": "here", "sources": ["127.0.0.1/32"], "host": f"127.0.0.1:{port}", "number_format": "as_is",
        "srtp": "off",
    }  # fmt: skip
    overrides = {"calls": {"recordings": str(small_disk)}, "trunks": [trunk]}
    with (
        ServerProcess(tmp_path / "server", {"disk.yaml": BRIDGE}, overrides) as server,
        three(server, tmp_path, {"callee": port}) as there,
    ):
        there.listen("callee", "callee-200-far-end-bye")
        there.place("caller", "caller-200-bye", user="bridge")
        there.hear_each_other()
        there.happened("recording.failed")
        there.hear_each_other()
        there.far["caller"].go_on()
        there.all_content()
        record = there.record()
        assert (record.reason, record.recording_status) == ("caller_hangup", "failed")
        assert "space" in record.of("recording.failed")[0]["reason"].lower()


def test_the_call_goes_on_when_the_folder_cannot_be_written(tmp_path: Path) -> None:
    in_the_way = tmp_path / "recordings"
    in_the_way.write_text("a file where a folder should be")
    overrides = {"calls": {"recordings": str(in_the_way)}}
    with ServerProcess(tmp_path / "server", {"disk.yaml": PLAN}, overrides) as server, Phone(server.sip_port) as phone:
        assert phone.invite("record").code == 200
        phone.say(tone(800, 1000))
        time.sleep(0.8)
        assert strongest_hz(phone.heard()[-3000:], 8000) == pytest.approx(1000, abs=10)
        phone.bye()
        (record,) = ended(server.database, phone.call_id)
        assert record.reason == "caller_hangup"
        assert record.of("recording.failed")
