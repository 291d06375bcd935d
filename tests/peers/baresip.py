"""A baresip softphone under control: configured from nothing, driven over its JSON socket, its sound in files.

Owns the process and its folder. It speaks with the module `aufile`, listens with `sndfile`, and needs no sound card.
"""

from __future__ import annotations

import json
import queue
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from tests.harness.server import free_port, free_range, free_sip_port
from tests.peers.rtp import level, strongest_hz

_WAV_HEAD = 44

_CONFIG = """
poll_method epoll
sip_listen 127.0.0.1:{sip}
sip_trans_def udp
net_interface 127.0.0.1
rtp_ports {rtp}
rtp_timeout {silent_s}
jitter_buffer_delay 1-4
audio_buffer 40-200
ausrc_format s16
auplay_format s16
auenc_format s16
audec_format s16
audio_source aufile,{folder}/said.wav
audio_player aubridge,nobody
audio_alert aubridge,alert
ringback_disabled yes
call_max_calls {calls}
module_path /usr/lib/baresip/modules
module g711.so
module g722.so
module aufile.so
module aubridge.so
module sndfile.so
module_tmp account.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen 127.0.0.1:{control}
snd_path {folder}
"""


class Control:
    """The JSON socket of a running baresip. log: what it has written, for messages. Use as a context manager."""

    def __init__(self, port: int, log: Callable[[], str]) -> None:
        self._port, self._log = port, log
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()

    def __enter__(self) -> Control:
        self._socket = socket.create_connection(("127.0.0.1", self._port), 5)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._socket.close()

    def command(self, command: str, params: str = "") -> dict[str, Any]:
        """What baresip answers. Raises queue.Empty when it does not."""
        text = json.dumps({"command": command, "params": params, "token": command}).encode()
        self._socket.sendall(b"%d:%s," % (len(text), text))
        return self._answers.get(timeout=5)

    def wait_for(self, kind: str, timeout_s: float = 10) -> dict[str, Any]:
        """The next event of a type such as CALL_ESTABLISHED; others before it are skipped."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                event = self._events.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {kind} from baresip:\n{self._log()[-3000:]}") from None
            if event.get("type") == kind:
                return event

    def _read(self) -> None:
        """Netstrings (`length:json,`) until baresip closes."""
        self._socket.settimeout(None)
        waiting = b""
        while chunk := self._receive():
            waiting += chunk
            while b":" in waiting:
                length, _, rest = waiting.partition(b":")
                if len(rest) <= int(length):
                    break
                message = json.loads(rest[: int(length)])
                (self._events if message.get("event") else self._answers).put(message)
                waiting = rest[int(length) + 1 :]

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(65_536)
        except OSError:
            return b""


class Baresip(Control):
    """One phone. folder holds `said.wav` (what it says, 8 kHz mono) and gets the dumps. Use as a context manager.

    modules: loaded beside the usual ones, e.g. `opus`, `srtp`. account: more parameters, e.g. `mediaenc=srtp-mand`.
    address: who it is and where it registers, which a phone on its own does not. silent_s: it hangs up when nothing
    comes for so long.
    """

    def __init__(
        self,
        folder: Path,
        codec: str = "PCMU",
        modules: tuple[str, ...] = (),
        account: str = "",
        *,
        address: str = "<sip:softphone@127.0.0.1>;regint=0",
        silent_s: int = 30,
        calls: int = 1,
    ) -> None:
        self.folder = folder
        super().__init__(free_port(socket.SOCK_STREAM), lambda: self.log)
        first, last = free_range(20)
        (folder / "config").write_text(
            _CONFIG.format(
                sip=free_sip_port(),
                rtp=f"{first}-{last}",
                control=self._port,
                folder=folder,
                silent_s=silent_s,
                calls=calls,
            )
            + "".join(f"module {module}.so\n" for module in modules)
        )
        (folder / "accounts").write_text(f"{address};audio_codecs={codec};ptime=20{account and ';'}{account}\n")
        (folder / "contacts").write_text("")
        self._log_file = folder / "baresip.log"

    def __enter__(self) -> Baresip:
        with self._log_file.open("wb") as log:
            self._process = subprocess.Popen(
                ["baresip", "-4", "-f", str(self.folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        self._socket = self._connected()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._socket.close()

    def _connected(self) -> socket.socket:
        deadline = time.monotonic() + 10
        while True:
            try:
                return socket.create_connection(("127.0.0.1", self._port), 1)
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    self._process.kill()
                    self._process.wait()
                    raise AssertionError(f"baresip did not start:\n{self.log}") from None
                time.sleep(0.05)

    @property
    def log(self) -> str:
        return self._log_file.read_text(errors="replace")

    def kill(self) -> None:
        """SIGKILL: it says goodbye to nobody."""
        self._process.kill()
        self._process.wait()

    def forget(self) -> None:
        """Remove what it heard in earlier calls."""
        for file in self.folder.glob("dump-*"):
            file.unlink()

    def hears_hz(self) -> float:
        """The tone of the last second that it heard in its latest call; 0 for silence, or for less than half a second.
        The file grows meanwhile.
        """
        files = sorted(self.folder.glob("dump-*-dec.wav"), key=lambda each: each.stat().st_mtime)
        sound = files[-1].read_bytes()[_WAV_HEAD:] if files else b""
        samples = np.frombuffer(sound[: len(sound) // 2 * 2], np.int16)[-8000:]
        return strongest_hz(samples, 8000) if len(samples) >= 4000 and level(samples) > 300 else 0.0

    @property
    def heard(self) -> Path:
        """The WAV file of what came from the far end."""
        return next(self.folder.glob("dump-*-dec.wav"))
