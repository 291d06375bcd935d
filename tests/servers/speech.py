"""A real speech worker in a process of its own: `python -m tests.servers.speech FILE`, FILE being settings as JSON.

`fake: true` in the file gives it engines that do what scripts say (`tests/fakes/speech_host.py`) instead of models.
It writes one line when it serves, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sipserver import log
from sipserver.fleet.speech import SpeechWorker
from sipserver.settings import Settings
from sipserver.speech.worker.server import SpeechServer
from tests.fakes.speech_host import FakeHost

ROOT = Path(__file__).resolve().parents[2]
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class SpeechProcess:
    """Blocking; `stop` it in the end, whatever was done to it before."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, uri: str = "", fake: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.uri = uri or f"unix://{folder / 'speech.sock'}"
        self._file = folder / "worker.json"
        self._file.write_text(json.dumps({"settings": settings, "uri": self.uri, "fake": fake}, default=str))
        self._log = folder / "worker.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Returns when it serves."""
        with self._log.open("ab") as log_file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.servers.speech", str(self._file)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log_file,
                cwd=ROOT,
            )
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise AssertionError(f"the speech worker does not start:\n{self._log.read_text()}")

    def kill(self) -> None:
        """As a crash: without a word."""
        process = self._process
        assert process is not None
        process.kill()
        self._reap()

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None:
            os.kill(self.pid, signal.SIGCONT)
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._reap()

    def cpu_s(self) -> float:
        """Used since it began, all threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS

    def _reap(self) -> None:
        assert self._process is not None
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None


async def _serve(given: Mapping[str, Any]) -> None:
    if given["fake"]:
        host = FakeHost()
        server = SpeechServer(host)
        await server.listen(given["uri"])
    else:
        worker = SpeechWorker(Settings.model_validate(given["settings"]), listen=[given["uri"]])
        await worker.start()
    sys.stdout.write("serves\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.buffer.read)
    if given["fake"]:
        await server.close()
        await host.close()
    else:
        await worker.close()


if __name__ == "__main__":
    log.setup("info", "json", False)
    asyncio.run(_serve(json.loads(Path(sys.argv[1]).read_text())))
