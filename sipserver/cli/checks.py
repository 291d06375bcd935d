"""What `sipserver doctor` looks at, one function a subject. Each returns findings and changes nothing.

Owns the judgement whether a call would work on this machine with these settings. Refuses to print and to repair.
All of it blocks for up to seconds (sockets, disks, a child process): command line only.
"""

from __future__ import annotations

import ctypes.util
import enum
import errno
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sipserver.agent.settings import LlamaCppSettings
from sipserver.cli import models as models_command
from sipserver.dialplan import book
from sipserver.errors import ConfigError
from sipserver.open_files import ENOUGH, MOST, reachable
from sipserver.settings import Settings
from sipserver.speech import models
from sipserver.speech.catalogue import CATALOGUE
from sipserver.speech.settings import EspeakSettings

PROBE_S = 2.0
PJSIP_S = 30.0
FREE_BYTES = 1 << 30
PORTS_A_CALL = 2
OLDEST = 1_767_225_600  # 2026-01-01: a clock before this is wrong, and certificates and records are wrong with it


class Verdict(enum.StrEnum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """subject: what was looked at. PROBLEM stops calls. todo: what the operator does about it; empty if nothing."""

    subject: str
    verdict: Verdict
    what: str
    todo: str = ""


def ok(subject: str, what: str) -> Finding:
    return Finding(subject, Verdict.OK, what)


def problem(subject: str, what: str, todo: str) -> Finding:
    return Finding(subject, Verdict.PROBLEM, what, todo)


def warning(subject: str, what: str, todo: str) -> Finding:
    return Finding(subject, Verdict.WARNING, what, todo)


# --- the network ------------------------------------------------------------------------------------------------------


def ports(settings: Settings) -> list[Finding]:
    """SIP, HTTP and RTP ports: free, or held by a running sipserver."""
    running = _running(settings)
    if settings.mode == "fleet":  # the edge has the SIP sockets, and cells find free ports by themselves
        return [check_port("HTTP", settings.http.host, settings.http.port, socket.SOCK_STREAM, "http.port", running)]
    found = [check_port("SIP UDP", settings.sip.host, settings.sip.port, socket.SOCK_DGRAM, "sip.port", running)]
    if settings.sip.tcp:
        found.append(
            check_port("SIP TCP", settings.sip.host, settings.sip.port, socket.SOCK_STREAM, "sip.port", running)
        )
    found.append(check_port("HTTP", settings.http.host, settings.http.port, socket.SOCK_STREAM, "http.port", running))
    return [*found, rtp_ports(settings)]


def rtp_ports(settings: Settings) -> Finding:
    """Enough even ports of the range must be free for the calls that the server accepts."""
    first, last = settings.sip.rtp_ports
    candidates = range(first + first % 2, last, PORTS_A_CALL)
    free = sum(_bind_error(settings.sip.host, port, socket.SOCK_DGRAM) is None for port in candidates)
    wanted = max(settings.sip.inbound_calls, 4)
    what = f"{free} of {len(candidates)} port pairs free in {first}-{last}"
    if free >= wanted:
        return ok("RTP ports", what)
    return problem("RTP ports", what, f"at least {wanted} are needed: widen or move sip.rtp_ports")


def check_port(subject: str, host: str, port: int, kind: socket.SocketKind, key: str, running: bool = False) -> Finding:
    """Free, or held by a sipserver that runs with these settings."""
    where = f"{host}:{port}"
    failed = _bind_error(host, port, kind)
    if failed is None:
        return ok(subject, f"{where} is free")
    if failed == errno.EADDRINUSE and running:
        return ok(subject, f"{where} is held by the running sipserver")
    if failed == errno.EADDRINUSE:
        flags = "-lunp" if kind is socket.SOCK_DGRAM else "-ltnp"
        return problem(subject, f"{where} is taken", f"see who holds it (ss {flags} 'sport = :{port}') or change {key}")
    if failed == errno.EACCES:
        return problem(
            subject, f"{where} needs a privilege", f"use a port above 1023 for {key}, or CAP_NET_BIND_SERVICE"
        )
    host_key = key.replace("port", "host")
    return problem(subject, f"{where}: {os.strerror(failed)}", f"{host_key} must be an address of this machine")


def _bind_error(host: str, port: int, kind: socket.SocketKind) -> int | None:
    """The errno that binding gives, None if it works. Listening sockets are tried as servers do (SO_REUSEADDR)."""
    try:
        family = socket.getaddrinfo(host, port, type=kind)[0][0]
        with socket.socket(family, kind) as probe:
            if kind is socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except socket.gaierror:
        return errno.EADDRNOTAVAIL
    except OSError as failure:
        return failure.errno or errno.EIO
    return None


def _running(settings: Settings) -> bool:
    """True when a sipserver answers on the HTTP port of these settings."""
    connection = http.client.HTTPConnection(settings.http.host, settings.http.port, timeout=PROBE_S)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().getheader("Server") == "sipserver"
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


# --- what the settings name -------------------------------------------------------------------------------------------


def dialplans(settings: Settings) -> list[Finding]:
    """Every file valid, every engine that they name in the settings, at least one file."""
    try:
        reading = book.read(settings.dialplans, settings.most_agents)
    except ConfigError as unreadable:
        return [problem("dialplans", str(unreadable), "the key `dialplans` of the settings names the folder")]
    engines = reading.book.unknown_engines(settings.speech.stt, settings.speech.tts, settings.llm)
    found = [problem("dialplans", str(wrong), "correct the file") for wrong in (*reading.errors, *engines)]
    found += [warning("dialplans", str(odd), "see `sipserver dialplan check`") for odd in reading.warnings]
    if not reading.book.plans:
        found.append(problem("dialplans", f"no usable file in {settings.dialplans}", "without one every call gets 404"))
    elif not found:
        found.append(ok("dialplans", f"{', '.join(plan.tenant for plan in reading.book.plans)}: valid"))
    return found


def models_used(settings: Settings) -> list[Finding]:
    """Every model that the settings name is there with the right sizes (`sipserver models verify` reads the bytes)."""
    found = []
    for name, users in models_command.uses(settings).items():
        subject = f"model {name}"
        try:
            path = models.find(name, settings.speech.models)
        except ConfigError as missing:
            known = CATALOGUE.get(name)
            damaged = known is not None and models.state(known, settings.speech.models) is models.State.DAMAGED
            what = "damaged" if damaged else "not installed"
            todo = getattr(missing, "command", f"sipserver models install {name}")
            found.append(problem(subject, f"{what}, used by {', '.join(users)}", todo))
        else:
            found.append(ok(subject, str(path)))
    return found


def programs(settings: Settings) -> list[Finding]:
    """Programs and libraries from Debian that the engines of the settings need, and browsers where the gate is open."""
    found = []
    if any(isinstance(engine, EspeakSettings) for engine in settings.speech.tts.values()):
        path = shutil.which("espeak-ng")
        todo = "apt-get install espeak-ng"
        found.append(ok("espeak-ng", path) if path else problem("espeak-ng", "not installed", todo))
    if any(isinstance(engine, LlamaCppSettings) for engine in settings.llm.values()):
        library = ctypes.util.find_library("gomp")
        todo = "apt-get install libgomp1; llama.cpp needs it"
        found.append(ok("OpenMP", library) if library else problem("OpenMP", "libgomp is not installed", todo))
    if os.environ.get(settings.gate.secret_env) and "opus" in settings.webrtc.codecs:
        library = ctypes.util.find_library("opus")
        todo = "apt-get install libopus0; calls from browsers need it, or leave opus out of webrtc.codecs"
        found.append(ok("Opus", library) if library else problem("Opus", "libopus is not installed", todo))
    return found


def pjsip(settings: Settings) -> list[Finding]:
    """Version and call limit, asked in a process of its own: a library that aborts does not end the doctor."""
    command = [sys.executable, "-m", "sipserver.sip.about"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=PJSIP_S, check=False)
        facts = json.loads(next(line for line in result.stdout.splitlines() if line.startswith("{")))
    except (subprocess.TimeoutExpired, StopIteration, json.JSONDecodeError):
        return [problem("PJSIP", "does not start", f"see what `{' '.join(command)}` prints; then `make setup`")]
    version, calls = facts["version"], facts["calls"]
    if calls is None:
        return [warning("PJSIP", f"{version}, call limit unknown", "the server counts it at start")]
    wanted = settings.sip.inbound_calls
    if wanted > calls:
        return [
            warning(
                "PJSIP", f"{version} holds {calls} calls, {wanted} are wanted", f"sip.inbound_calls is cut to {calls}"
            )
        ]
    return [ok("PJSIP", f"{version}, {calls} calls at a time, {wanted or max(1, calls - 1)} of them inbound")]


# --- the machine ------------------------------------------------------------------------------------------------------


def folders(settings: Settings) -> list[Finding]:
    """Recordings, records and models can be written, and there is room for them; dialplans, where REST changes them."""
    places = {"recordings": settings.calls.recordings, "models folder": settings.speech.models}
    scheme, slashes, path = settings.store.url.partition(":///")
    if scheme.startswith("sqlite") and slashes and path:
        places["call records"] = Path(path).parent
    found = [_folder(subject, place) for subject, place in places.items()]
    if settings.dialplans.is_dir() and not _writable(settings.dialplans):
        todo = "REST cannot change dialplans; if it shall, give the folder to the server's user"
        found.append(warning("dialplans folder", f"{settings.dialplans} cannot be written", todo))
    return found


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK)


def _folder(subject: str, folder: Path) -> Finding:
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir() or not _writable(there):
        return problem(subject, f"{there} cannot be written", f"make {folder} and give it to the server's user")
    free = shutil.disk_usage(there).free
    what = f"{folder}, {free / 1e9:.1f} GB free"
    if free < FREE_BYTES:
        return warning(subject, what, "an hour of stereo recording takes 230 MB: free some space")
    return ok(subject, what)


def limits(_settings: Settings) -> list[Finding]:
    """Open files: a call needs about a dozen, the engines some hundred, each HTTP client one."""
    limit = reachable()
    if limit < ENOUGH:
        return [warning("open files", f"limit {limit}", f"ulimit -Hn {MOST}, or LimitNOFILE={MOST} in the unit")]
    return [ok("open files", f"limit {limit}")]


def clock(_settings: Settings) -> list[Finding]:
    """The date is plausible and the monotonic clock is fine enough for 20 ms frames."""
    if time.time() < OLDEST:
        return [warning("clock", time.strftime("%Y-%m-%d"), "set the clock; records and TLS need it (timedatectl)")]
    resolution = time.get_clock_info("monotonic").resolution
    if resolution > 0.001:
        return [
            problem("clock", f"monotonic clock ticks every {resolution} s", "use a kernel with high-resolution timers")
        ]
    return [ok("clock", time.strftime("%Y-%m-%d %H:%M %Z"))]


CHECKS: tuple[Callable[[Settings], list[Finding]], ...] = (
    ports,
    dialplans,
    models_used,
    programs,
    pjsip,
    folders,
    limits,
    clock,
)
