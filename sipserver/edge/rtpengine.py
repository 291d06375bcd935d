"""rtpengine, the media relay beside the edge: its configuration, and its process from outside.

Owns the rendered file, starting, finding a running one again, health, statistics, stopping. Refuses to know SIP: which
call is relayed and how is said in `etc/kamailio/media.cfg.j2`, from what `media_routes` decides.

The process belongs to nobody: it has its own session, its log is a file, so it outlives the supervisor and the next one
adopts it by its pid file. Forwarding is done in user space (`table = -1`); no kernel module is needed.
"""

from __future__ import annotations

import asyncio
import re
import socket
import time
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from sipserver.edge import ng
from sipserver.edge.follow import Follower
from sipserver.edge.settings import RtpengineSettings
from sipserver.edge.survivor import Survivor
from sipserver.errors import SettingsError
from sipserver.log import logger

READY_S = 10.0
STOP_S = 5.0
LOG_BYTES = 10_000_000
"""A log longer than this is emptied: its lines stand in our own log."""

_FILE = """\
[rtpengine]
# Written by `sipserver edge render` from the settings; changes here are lost.
table = -1
interface = {interfaces}
listen-ng = {control}
port-min = {first_port}
port-max = {last_port}
endpoint-learning = {learning}
tos = 184
timeout = {timeout_s}
silent-timeout = {silent_timeout_s}
offer-timeout = {offer_timeout_s}
delete-delay = 0
log-level = {log_level}
log-stderr = true
foreground = true
pidfile = {pid_file}
"""

TIMEOUT_S = 60
"""No packet in either direction for so long: Kamailio has lost the call; the ports are freed."""
SILENT_TIMEOUT_S = 3600
"""The same for a call on hold."""
OFFER_TIMEOUT_S = 300
"""An offer without an answer. Longer than a call may ring."""
LOG_LEVEL = 4
"""Warnings and worse (syslog's numbers); the next level writes lines for every call."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What rtpengine counts. calls, transcoded: now; packets_per_s, bytes_per_s: now, both directions together.

    The rest since its start: uptime_s; packets and bytes forwarded; errors: packets dropped, those of strangers among
    them; calls_total, timeouts (no packet for TIMEOUT_S or an offer without answer), rejected.
    """

    calls: int
    transcoded: int
    packets_per_s: int
    bytes_per_s: int
    uptime_s: int
    packets: int
    bytes: int
    errors: int
    calls_total: int
    timeouts: int
    rejected: int

    @classmethod
    def of(cls, answer: dict[str, Any]) -> Statistics:
        now, total = answer["statistics"]["currentstatistics"], answer["statistics"]["totalstatistics"]
        return cls(
            calls=int(now["sessionstotal"]),
            transcoded=int(now["transcodedmedia"]),
            packets_per_s=int(now["packetrate"]),
            bytes_per_s=int(now["byterate"]),
            uptime_s=int(total["uptime"]),
            packets=int(total["relayedpackets"]),
            bytes=int(total["relayedbytes"]),
            errors=int(total["relayedpacketerrors"]),
            calls_total=int(total["managedsessions"]),
            timeouts=sum(
                int(total[kind]) for kind in ("timeoutsessions", "silenttimeoutsessions", "offertimeoutsessions")
            ),
            rejected=int(total["rejectedsessions"]),
        )


_LINE = re.compile(r"^(\[[0-9.]+\] )?(?P<level>[A-Z]+): (?P<text>.*)$")
_LEVELS = {"WARNING": "warning", "NOTICE": "info", "INFO": "info", "DEBUG": "debug"}


def config_file(folder: Path) -> Path:
    return folder / "rtpengine.conf"


def pid_file(folder: Path) -> Path:
    return folder / "rtpengine.pid"


def log_file(folder: Path) -> Path:
    return folder / "rtpengine.log"


def render(settings: RtpengineSettings, folder: Path) -> str:
    """The text of `rtpengine.conf`; folder is where its pid file will lie."""
    return _FILE.format(
        interfaces=";".join(settings.interfaces),
        control=settings.control,
        first_port=settings.ports[0],
        last_port=settings.ports[1],
        learning="off" if settings.strict_source else "heuristic",
        timeout_s=TIMEOUT_S,
        silent_timeout_s=SILENT_TIMEOUT_S,
        offer_timeout_s=OFFER_TIMEOUT_S,
        log_level=LOG_LEVEL,
        pid_file=pid_file(folder),
    )


def command(settings: RtpengineSettings, folder: Path) -> list[str]:
    """What starts it in the foreground."""
    return [settings.program, f"--config-file={config_file(folder)}"]


def _check_addresses(settings: RtpengineSettings) -> None:
    """rtpengine starts with an address that is not this machine's and fails at the first call. Raises SettingsError."""
    for interface in settings.interfaces:
        local = interface.partition("/")[2].partition("!")[0]
        try:
            family = socket.AF_INET6 if ip_address(local).version == 6 else socket.AF_INET
        except ValueError:
            continue  # the name of a network interface or a host: rtpengine resolves it
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((local, 0))
            except OSError as error:
                raise SettingsError(f"{interface}: {error}", key="edge.rtpengine.interfaces") from None


class Rtpengine:
    """One rtpengine of this machine. All methods: loop thread; safe to cancel unless they say otherwise."""

    def __init__(self, settings: RtpengineSettings, folder: Path) -> None:
        self._settings, self._folder = settings, folder
        self._process = Survivor()
        self._log = logger("edge", server="rtpengine")
        self._follower = Follower(log_file(folder), self._tell, self._skipped, LOG_BYTES)
        self.adopted = False
        """The running process was there before we were."""

    @property
    def pid(self) -> int | None:
        return self._process.pid

    async def start(self, timeout_s: float = READY_S) -> None:
        """Find a running one again or start one; wait until it answers. Raises SettingsError with its last words.

        A running one with other settings keeps them, since its calls would lose their sound; the log says so. One that
        does not answer (it hangs, or listens elsewhere) is ended.
        """
        text = render(self._settings, self._folder)
        if await self.adopt():
            if not self._runs_with(text):
                self._log.warning("the running media relay has other settings; new ones count from its next start")
            return
        _check_addresses(self._settings)
        await self._end_deaf()
        self._folder.mkdir(parents=True, exist_ok=True)
        config_file(self._folder).write_text(text)
        pid_file(self._folder).unlink(missing_ok=True)
        log = log_file(self._folder)
        try:
            began = self._process.launch(command(self._settings, self._folder), log, self._folder)
        except OSError as error:
            raise SettingsError(f"cannot start {self._settings.program}: {error}", key="edge.rtpengine") from None
        self.adopted = False
        deadline = time.monotonic() + timeout_s
        while not await self.alive(0.3):
            if not self._process.lives or time.monotonic() > deadline:
                await self.stop()
                told = log.read_bytes()[began:].decode(errors="replace").strip()
                raise SettingsError(f"rtpengine does not answer: {told[-1000:]}", key="edge.rtpengine")
            await asyncio.sleep(0.02)
        self._follower.start(began)
        self._log.info("media relay runs", child=self.pid)

    async def adopt(self) -> bool:
        """Take over the one that the pid file names, if it lives and answers; whoever started it."""
        try:
            pid = int(pid_file(self._folder).read_text())
            self._process.watch(pid)
        except (OSError, ValueError):
            return False
        if self._known(pid) is False or not await self.alive():
            self._process.leave()
            return False
        self.adopted = True
        self._follower.start()
        self._log.info("media relay adopted", child=pid)
        return True

    def _runs_with(self, text: str) -> bool:
        try:
            return config_file(self._folder).read_text() == text
        except OSError:
            return False

    def _known(self, pid: int) -> bool | None:
        """It is rtpengine with our file, and no other program that has got its pid since. None: we may not look."""
        try:
            return str(config_file(self._folder)).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return None

    async def _end_deaf(self) -> None:
        """End the one that the pid file names if it is certainly ours."""
        try:
            pid = int(pid_file(self._folder).read_text())
            self._process.watch(pid)
        except (OSError, ValueError):
            return
        if self._known(pid):
            self._log.warning("a media relay that does not answer is ended", child=pid)
            await self.stop()
        self._process.leave()

    async def alive(self, timeout_s: float = 1.0) -> bool:
        """It answers a ping."""
        try:
            return (await ng.ask(self._settings.control, "ping", timeout_s=timeout_s)).get("result") == "pong"
        except ng.NoAnswer:
            return False

    async def statistics(self) -> Statistics:
        """Raises NoAnswer."""
        return Statistics.of(await ng.ask(self._settings.control, "statistics"))

    async def exited(self) -> None:
        """Returns when the process is gone (at once when none was started or adopted)."""
        await self._process.exited()

    async def stop(self, timeout_s: float = STOP_S) -> None:
        """End it: SIGTERM, at the deadline SIGKILL. Relayed calls lose their sound."""
        await self._process.end(timeout_s)
        await self.leave()

    async def kill(self) -> None:
        """End one that hangs, at once."""
        await self._process.kill()
        await self.leave()

    async def leave(self) -> None:
        """Stop looking at it; it runs on and the next supervisor finds it."""
        await self._follower.stop()
        self._process.leave()
        self.adopted = False

    def _skipped(self, size: int) -> None:
        self._log.warning("media relay says too much; left out", bytes=size)

    def _tell(self, line: str) -> None:
        """`[seconds] LEVEL: text`; the text of a call names it, no number and no address of a person."""
        found = _LINE.match(line)
        if found is not None:
            getattr(self._log, _LEVELS.get(found["level"], "error"))("media relay says", line=found["text"])
        elif line.strip():
            self._log.info("media relay says", line=line)
