"""Kamailio's process from outside: files written, checked, started, found again, followed, stopped.

Owns its folder, pid file and log. Refuses to know SIP (the templates do) and which cells there are (edge.py).

The process belongs to nobody: it has its own session and its log is a file, so it outlives the supervisor, and the next
one adopts it by its pid file.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sipserver.edge import render, rpc
from sipserver.edge.follow import Follower
from sipserver.edge.settings import EdgeSettings
from sipserver.edge.survivor import Survivor
from sipserver.errors import SettingsError
from sipserver.log import logger

READY_S = 10.0
STOP_S = 5.0
CHECK_S = 10.0
LOG_BYTES = 10_000_000
"""A longer log is put aside (`kamailio.log.1`) when Kamailio starts, and cut when all of it was read."""
SOCKET_PATH_BYTES = 100
"""Unix sockets' paths hold 107 bytes; Kamailio needs some for itself, the names of those for answers are longer."""

_ERRORS = dict.fromkeys(("ALERT", "BUG", "CRITICAL", "ERROR"), "error")
_LEVELS = {**_ERRORS, "WARNING": "warning", "NOTICE": "info"}
_LINE = re.compile(r"^\s*\d+\(\d+\) (?P<level>[A-Z]+): (?P<text>.*)$")
_GARBAGE = re.compile(r"\[(core/parser/|core/receive\.c|core/msg_translator\.c|sanity\.c|tls_)")
"""What is wrong with a stranger's message is no error of ours."""
_PROBLEM = re.compile(
    r"parse error in config file (?P<file>\S+?), "
    r"(?:from line \d+, column \d+ to )?line (?P<line>\d+)[^:]*: ?(?P<text>.*)$"
)


class Kamailio:
    """One Kamailio of this machine. All methods: loop thread; safe to cancel unless they say otherwise."""

    def __init__(self, settings: EdgeSettings) -> None:
        self._settings = settings
        self.places = render.Places(settings.folder, _rpc_socket(settings.folder))
        self.pid_file = settings.folder / "kamailio.pid"
        self.log_file = settings.folder / "kamailio.log"
        self._log = logger("edge", server="kamailio")
        self._process = Survivor(on_end=self._clear)
        self._follower = Follower(self.log_file, self._tell, self._skipped, LOG_BYTES)
        self.adopted = False
        """The running process was there before we were."""

    @property
    def pid(self) -> int | None:
        return self._process.pid

    # --- files --------------------------------------------------------------------------------------------------------

    def secrets(self) -> render.Secrets:
        """Of this edge, made when there are none. Blocks for a small file."""
        kept = self._settings.folder / "secret"
        with contextlib.suppress(OSError, ValueError):
            nonce, topology = kept.read_text().split()
            return render.Secrets(nonce, topology)
        made = render.Secrets(secrets.token_hex(32), secrets.token_hex(16))
        self._settings.folder.mkdir(parents=True, exist_ok=True)
        write(kept, f"{made.nonce}\n{made.topology}\n")
        return made

    def write(self, texts: Mapping[str, str]) -> None:
        """Blocks for small files. Each is replaced at once, readable by this user alone."""
        self._settings.folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            write(self._settings.folder / name, text)

    async def check(self, texts: Mapping[str, str]) -> None:
        """Let Kamailio read the files, in a folder of their own. Raises SettingsError with its words and the line."""
        with tempfile.TemporaryDirectory(prefix="edge-") as name:
            folder = Path(name)
            for file, text in texts.items():
                write(folder / file, text)
            command = [self._settings.program, "-c", "-f", str(folder / render.CONFIG), "-Y", name]
            try:
                process = await asyncio.create_subprocess_exec(
                    *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
                )
            except OSError as error:
                raise SettingsError(f"cannot start {self._settings.program}: {error}", key="edge.program") from None
            try:
                said, _ = await asyncio.wait_for(process.communicate(), CHECK_S)
            except TimeoutError:
                raise SettingsError("Kamailio did not finish reading its configuration", key="edge") from None
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        if process.returncode:
            raise _problem(said.decode(errors="replace"), self._settings.folder)

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(self, timeout_s: float = READY_S) -> None:
        """Start it and wait until it answers. Raises SettingsError with what it logged. The files are there already."""
        self._clear()
        self.pid_file.unlink(missing_ok=True)
        self._clear_sockets()
        if self._short:
            self.places.rpc_socket.parent.mkdir(mode=0o700, exist_ok=True)
            _check_owner(self.places.rpc_socket.parent)
        if self.log_file.exists() and self.log_file.stat().st_size > LOG_BYTES:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        command = [
            *(self._settings.program, "-f", str(self._settings.folder / render.CONFIG), "-P", str(self.pid_file)),
            *("-DD", "-E", "-m", str(self._settings.memory_mb), "-M", "8"),
            *("-Y", str(self.places.rpc_socket.parent), "-w", str(self._settings.folder)),
        ]
        try:
            began = self._process.launch(command, self.log_file, self._settings.folder)
        except OSError as error:
            raise SettingsError(f"cannot start {self._settings.program}: {error}", key="edge.program") from None
        self.adopted = False
        deadline = time.monotonic() + timeout_s
        while not await self.alive(0.2):
            if not self._process.lives or time.monotonic() > deadline:
                await self.stop()
                raise _problem(self.log_file.read_bytes()[began:].decode(errors="replace"), self._settings.folder)
            await asyncio.sleep(0.02)
        self._follower.start(began)
        self._log.info("edge runs", pid=self.pid)

    async def adopt(self) -> bool:
        """Take over the one that the pid file names, if it lives and answers; whoever started it."""
        try:
            pid = int(self.pid_file.read_text())
            self._process.watch(pid)
        except (OSError, ValueError):
            return False
        if self._stranger(pid) or not await self.alive():
            self._process.leave()
            return False
        self.adopted = True
        self._follower.start()
        self._log.info("edge adopted", pid=pid)
        return True

    def _stranger(self, pid: int) -> bool:
        """Another program has got this pid since. What we may not look at (another user's) is believed."""
        try:
            return str(self._settings.folder / render.CONFIG).encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False

    async def ask(self, method: str, *parameters: str | int, timeout_s: float = 2.0) -> Any:
        """A question by RPC. Raises RpcError."""
        return await rpc.ask(self.places.rpc_socket, method, *parameters, timeout_s=timeout_s)

    async def alive(self, timeout_s: float = 1.0) -> bool:
        """It answers: all its processes are there."""
        try:
            await self.ask("core.uptime", timeout_s=timeout_s)
        except rpc.RpcError:
            return False
        return True

    async def exited(self) -> None:
        """Returns when the process is gone (at once when none was started or adopted)."""
        await self._process.exited()

    async def stop(self, timeout_s: float = STOP_S) -> None:
        """End it: SIGTERM, at the deadline SIGKILL to all of its session."""
        if self._process.lives:
            await self._process.end(timeout_s)
            self._clear_sockets()
            if self._short:
                with contextlib.suppress(OSError):  # somebody asks
                    self.places.rpc_socket.parent.rmdir()
        await self.leave()

    async def kill(self) -> None:
        """End one that hangs: SIGKILL to all its processes. Dialogs go on with the next."""
        await self._process.kill()
        await self.leave()

    @property
    def _short(self) -> bool:
        """The socket is not in the folder."""
        return self.places.rpc_socket.parent != self._settings.folder

    def _clear_sockets(self) -> None:
        """Of a Kamailio that is gone, and of those who asked it."""
        for file in (self.places.rpc_socket, *self.places.rpc_socket.parent.glob(f"{rpc.ANSWERS}*")):
            file.unlink(missing_ok=True)

    async def leave(self) -> None:
        """Stop looking at it; it runs on and the next supervisor finds it."""
        await self._follower.stop()
        self._process.leave()
        self.adopted = False

    def _clear(self) -> None:
        """Kamailio's processes that outlived their parent's sudden death hold its sockets: end them."""
        mark = os.fsencode(self._settings.folder / render.CONFIG)
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    if b"-DD" in words and mark in words and b"-P" in words:
                        os.kill(int(entry.name), signal.SIGKILL)

    # --- log ----------------------------------------------------------------------------------------------------------

    def _skipped(self, size: int) -> None:
        self._log.warning("edge says too much; left out", bytes=size)

    def _tell(self, line: str) -> None:
        found = _LINE.match(line)
        if found is None:
            if line.strip():
                self._log.debug("edge says", line=line)
            return
        level = "debug" if _GARBAGE.search(found["text"]) else _LEVELS.get(found["level"], "debug")
        getattr(self._log, level)("edge says", line=found["text"])


def write(file: Path, text: str) -> None:
    """Replace a file at once, mode 0600."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
        os.replace(name, file)
    except BaseException:
        os.unlink(name)
        raise


def _rpc_socket(folder: Path) -> Path:
    """In the folder, or, where its path is too long for a socket, in a place for this user that follows from it."""
    place = folder / "rpc.sock"
    if len(os.fsencode(place)) <= SOCKET_PATH_BYTES:
        return place
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    short = runtime / f"sipserver-edge-{os.getuid()}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"
    if short.is_symlink() or short.exists():
        _check_owner(short)
    return short / "rpc.sock"


def _check_owner(short: Path) -> None:
    """Raises SettingsError."""
    if short.lstat().st_uid != os.getuid() or short.is_symlink():
        raise SettingsError(f"{short} belongs to somebody else", key="edge.folder")


def _problem(said: str, folder: Path) -> SettingsError:
    """Kamailio's first complaint, with the line of the rendered file."""
    for line in said.splitlines():
        if found := _PROBLEM.search(line):
            return SettingsError(
                f"Kamailio: {found['text']}",
                file=folder / Path(found["file"]).name,
                line=int(found["line"]),
                key="edge",
            )
    bad = [line.strip() for line in said.splitlines() if any(word in line for word in ("ERROR", "CRITICAL"))]
    told = "; ".join(bad[:3]) or said.strip()[-500:] or "no word of why"
    return SettingsError(f"Kamailio does not start: {told}", key="edge")
