"""One SIPp scenario at work: started with a time limit, its exit code and its trace kept.

Owns the command line. Refuses to know what a scenario should lead to; `test_sipp.py` does.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from tests.harness.server import free_range
from tests.peers.rtp import Heard, RtpPeer, Script

SCENARIOS = Path(__file__).resolve().parents[1] / "sipp_scenarios"
LIMIT_S = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """code: SIPp's exit code (0: every call went by the scenario). trace: what it complained about and the messages."""

    name: str
    code: int
    sip_call_id: str
    trace: str
    heard: Heard = field(default_factory=Heard)
    sent: int = 0


class Sipp:
    """A SIPp process with one call. folder: where it runs and its traces go.

    server_port: whom to call; 0 for a scenario that is called. port: its own, the two after it are its too; 0: any.
    host: its own address, one of the loopback's. unique: of the Call-ID, for a server that gets the same call again.
    Use as a context manager: leaving it ends the process.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        server_port: int = 0,
        *,
        user: str = "echo",
        tcp: bool = False,
        limit_s: float = LIMIT_S,
        keys: Mapping[str, str | int] | None = None,
        options: tuple[str, ...] = (),
        port: int = 0,
        host: str = "127.0.0.1",
        unique: str = "",
    ) -> None:
        self.name, self.host = name, host
        self.port = port or free_range(8)[0]
        self.sip_call_id = f"{name}{unique}-1@{host}"
        self._limit_s, self._folder = limit_s, folder
        self._errors, self._messages = folder / f"{name}.errors", folder / f"{name}.messages"
        self._command = [
            *("sipp", "-sf", str(SCENARIOS / f"{name}.xml"), "-m", "1", "-l", "1", "-r", "20"),
            *("-i", host, "-p", str(self.port), "-bind_local"),
            *("-ci", host, "-cp", str(self.port + 1), "-mi", host, "-mp", str(self.port + 2)),
            *("-t", "t1" if tcp else "u1", "-cid_str", f"{name}{unique}-%u@%s", "-s", user),
            *("-nostdin", "-timeout", f"{limit_s:g}s", "-timeout_error", "-recv_timeout", "8s"),
            *("-trace_err", "-error_file", str(self._errors), "-trace_msg", "-message_file", str(self._messages)),
            *(piece for key, value in (keys or {}).items() for piece in ("-key", key, str(value))),
            *options,
            *((f"127.0.0.1:{server_port}",) if server_port else ()),
        ]
        self._is_called = not server_port
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Sipp:
        self._process = subprocess.Popen(
            self._command,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if self._is_called:
            self._await_port()
        return self

    def _await_port(self) -> None:
        """Until it listens; what is sent before is lost."""
        mine = f":{self.port:04X} "
        deadline = time.monotonic() + self._limit_s
        while not any(mine in Path(table).read_text() for table in ("/proc/net/udp", "/proc/net/tcp")):
            assert time.monotonic() < deadline, f"{self.name} does not listen"
            time.sleep(0.01)

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def wait(self) -> int:
        """The exit code. Raises TimeoutExpired when SIPp outlives its own limit."""
        assert self._process is not None
        return self._process.wait(self._limit_s + 5)

    @property
    def is_over(self) -> bool:
        assert self._process is not None
        return self._process.poll() is not None

    @property
    def messages(self) -> str:
        """Every SIP message so far, in order."""
        return self._messages.read_text(errors="replace") if self._messages.exists() else ""

    @property
    def trace(self) -> str:
        return "\n".join(
            file.read_text(errors="replace")[-12_000:] for file in (self._errors, self._messages) if file.exists()
        )


def call(
    name: str,
    folder: Path,
    server_port: int,
    script: Script | None = None,
    *,
    user: str = "echo",
    tcp: bool = False,
    limit_s: float = LIMIT_S,
    keys: Mapping[str, str | int] | None = None,
    options: tuple[str, ...] = (),
) -> Outcome:
    """Place one call by scenario. With a script, an RTP peer sends and listens; without, port 9 is named."""
    with RtpPeer(script) if script else nullcontext() as peer:
        media = {"rtp_port": peer.port if peer else 9, **(keys or {})}
        sipp = Sipp(name, folder, server_port, user=user, tcp=tcp, limit_s=limit_s, keys=media, options=options)
        with sipp:
            code = sipp.wait()
        heard, sent = (peer.heard, peer.sent) if peer else (Heard(), 0)
    return Outcome(name, code, sipp.sip_call_id, sipp.trace, heard, sent)
