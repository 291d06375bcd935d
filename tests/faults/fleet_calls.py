"""Many short calls with sound through a fleet while something happens to it, and whose process has a call.

Owns a SIPp with the scenario of the benches, bounded in calls and in time. Refuses to know what happens meanwhile.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from tests.harness.fleet import FleetProcess
from tests.harness.records import Record
from tests.harness.talk import Talker
from tools.bench.load import rtp, wire
from tools.bench.load.sipp import Calls, Sipp
from tools.bench.load.sound import clicks
from tools.bench.load.target import line_ports
from tools.bench.load.wire import Wire

PLAN = """
tenant: acme
flows:
  main: [answer, {record: {stereo: true}}, {echo: {max_s: 120}}]
  refuse: [hangup]
routes:
  - {match: {to: echo}, flow: main}
  - {match: {to: refuse}, flow: refuse}
"""
GAP_MS = 60
"""What nobody may hear of a part that dies or stands still, unless it has the call."""
END_S = 20.0


class Traffic:
    """What became of it once `calling` has returned."""

    def __init__(self, folder: Path, sipp: Sipp) -> None:
        self.folder, self.sipp = folder, sipp
        self.calls = Calls(0, 0, 0)
        self.wire = Wire()

    @property
    def up(self) -> int:
        """Calls that are answered now."""
        return self.sipp.course().up

    def assert_good(self) -> None:
        """All calls were made, answered and heard until their caller hung up."""
        calls = self.calls
        assert (calls.made, calls.good, calls.failed, calls.stuck) == (self.sipp.total, self.sipp.total, 0, ()), calls
        assert len(self.wire.calls) == calls.made
        cut = [call.call for call in self.wire.calls if call.cut]
        assert not cut, f"calls {cut} fell silent"


@contextmanager
def calling(
    fleet: FleetProcess, folder: Path, *, total: int, rate: float = 5, at_once: int = 8, hold_s: float = 1.5
) -> Iterator[Traffic]:
    """Calls begin with the block and go on beside it; it returns when the last one is over. They do not wait for the
    block, nor it for them."""
    folder.mkdir(parents=True)
    (port,) = line_ports(1)
    made_s = total / min(rate, at_once / (hold_s + 0.1))
    sipp = Sipp(
        folder,
        (fleet.host, fleet.sip_port),
        user="echo",
        total=total,
        at_once=at_once,
        rate=rate,
        hold_s=hold_s,
        ports=[port],
        limit_s=made_s + hold_s + END_S,
    )
    traffic = Traffic(folder, sipp)
    with _sound(folder, sipp.log, port), sipp:
        yield traffic
        traffic.calls = sipp.wait()
    traffic.wire = wire.judge(rtp.load(folder / "sound.npz"))


@contextmanager
def _sound(folder: Path, log: Path, port: int) -> Iterator[None]:
    pattern, out = folder / "pattern.npy", folder / "sound.npz"
    np.save(pattern, clicks())
    command = [sys.executable, "-m", "tools.bench.load.rtp", str(log), str(out), str(pattern), "127.0.0.1", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield
        finally:
            process.terminate()
            process.wait(30)


def cell_of(fleet: FleetProcess, phone: Talker) -> int:
    """The process that has the phone's call, found by the port of its media."""
    assert phone.media is not None
    inodes = {
        row.split()[9]
        for row in Path("/proc/net/udp").read_text().splitlines()[1:]
        if int(row.split()[1].rpartition(":")[2], 16) == phone.media[1]
    }
    for pid in fleet.members():
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if os.readlink(descriptor)[8:-1] in inodes:
                    return pid
    raise AssertionError(f"nobody has port {phone.media[1]}")


def cells_ready(status: Mapping[str, Any]) -> int:
    return sum(each["kind"] == "cell" and each["state"] == "ready" for each in status["children"])


def complete(record: Record) -> bool:
    """Closed, from the first to the last event, none missing."""
    return (
        bool(record.reason)
        and record.kinds[0] == "call.started"
        and "call.ended" in record.kinds
        and record.numbers == tuple(range(len(record.numbers)))
    )
