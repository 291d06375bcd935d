"""What a process of the fleet is: its kinds, what each is told about itself, and how one begins life after the fork.

Owns the table of kinds and the first and last moments of a child. Refuses to know what a kind does and who decides
about its life.
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import os
import platform
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import uvloop

from sipserver import log
from sipserver.errors import SipServerError
from sipserver.fleet.control import Control
from sipserver.log import logger
from sipserver.settings import Settings

PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
_NAME_BYTES = 15  # prctl(2): 16 with the zero at the end
_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD)


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What a process is told about itself.

    kind: a key of the table of kinds. name: `cell-03`, stays over restarts; index: its number among its kind. node: the
    machine. run: this life of the process (hex), new with every start. settings: those that were read when the warm
    parent started; a child does not read the file again.

    Cells only, else 0: host and sip_port of its SIP socket, rtp_ports (first and last, inclusive), inbound_calls: how
    many it takes at a time; capacity: what the linked PJSIP holds.

    warm: what the kind's `preload` returned before the fork; shared with its siblings, never to be changed.
    """

    kind: str
    name: str
    index: int
    node: str
    run: str
    settings_file: Path
    settings: Settings
    host: str = ""
    sip_port: int = 0
    rtp_ports: tuple[int, int] = (0, 0)
    inbound_calls: int = 0
    capacity: int = 0
    warm: Any = None


ProcessMain = Callable[[ChildSpec, Control], Awaitable[None]]
"""The life of a process: build, `control.ready(...)`, `control.obey(...)`, take down, return. It runs in a loop of its
own (uvloop). What it raises ends the process with code 1, after a line in the log."""

Preload = Callable[[Settings, bool], Any]
"""(settings, strict). Runs in the warm parent before any fork; its result is `ChildSpec.warm`. It must leave neither
thread nor loop nor anything of PJSIP, onnxruntime or CTranslate2 behind. Raises ConfigError for files that cannot be
used; not strict, it does without them where that is possible: calls go on, and a warm parent has died."""


@dataclass(frozen=True, slots=True)
class Kind:
    """main: `module:function`, a ProcessMain. preload: `module:function`, a Preload, or empty.

    warm: the module is imported before the fork: a child is there at once and shares the memory. Others import theirs
    after the fork, so that their libraries stay out of everybody else's memory.
    overlap: a renewed process may start while the old one still works (a cell has a port of its own, gateways share
    one); otherwise the old one ends first.
    """

    main: str
    preload: str = ""
    warm: bool = True
    overlap: bool = True


Kinds = Mapping[str, Kind]

KINDS: Kinds = {
    "cell": Kind("sipserver.fleet.cell:main", preload="sipserver.fleet.cell:preload"),
    "gateway": Kind("sipserver.fleet.gateway:main", preload="sipserver.fleet.cell:preload"),
    "writer": Kind("sipserver.fleet.writer_process:main", warm=False, overlap=False),
    "speech": Kind("sipserver.fleet.speech_process:main", warm=False),
    "probe": Kind("sipserver.fleet.probe:main", warm=False),
}
"""What the fleet consists of. `probe` lives for a moment: it reads what PJSIP holds, so that no PJSIP ever wakes up in
the supervisor."""


def resolve(place: str) -> Any:
    """The object behind `module:name`. Raises ImportError or AttributeError: a kind that is not there is a mistake."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def live(spec: ChildSpec, main: str, control_socket: socket.socket) -> int:
    """The whole life of a child, called right after the fork in a process that has one thread and no loop; returns the
    exit code. It has left the terminal's process group with its warm parent, and takes SIGTERM for an order to drain:
    only the supervisor ends it.
    """
    _begin(spec)
    settings = spec.settings
    log.setup(settings.log.level, settings.log.format, settings.log.private, process=spec.name, node=spec.node)
    with log.background():
        try:
            uvloop.run(_main(spec, resolve(main), control_socket))
        except SipServerError as problem:
            logger("process").error("ended", error=str(problem))
            return 1
        except asyncio.CancelledError:
            return 1
        except Exception:
            logger("process").exception("broke")
            return 1
    return 0


async def _main(spec: ChildSpec, main: ProcessMain, control_socket: socket.socket) -> None:
    settings, starting = spec.settings, asyncio.current_task()
    assert starting is not None
    control = Control(
        control_socket,
        heartbeat_s=settings.fleet.heartbeat_s,
        drain_s=settings.calls.drain_s,
        orphan_s=settings.fleet.orphan_s,
        give_up=starting.cancel,
    )
    await control.open()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, control.drain)
    try:
        await main(spec, control)
    finally:
        await control.close()


def _begin(spec: ChildSpec) -> None:
    """Shed what the warm parent had: its signals, its random numbers, its name."""
    signal.set_wakeup_fd(-1)
    for number in _HANDLED:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    faulthandler.enable()
    set_process_name(spec.name)
    _reseed()


def _reseed() -> None:
    """Python's own generator does so by itself (os.register_at_fork in random.py), and uuid and secrets ask the kernel;
    numpy's global one, if anything has imported it, would give every child the same numbers."""
    generator = sys.modules.get("numpy.random")
    if generator is not None:
        generator.seed(int.from_bytes(os.urandom(4), "little"))


def become_subreaper() -> None:
    """Processes that lose their parent become ours (prctl(2)): the children of a warm parent."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def node_name(settings: Settings) -> str:
    """This machine in records, leases and logs."""
    return settings.fleet.node or platform.node()


def set_process_name(name: str) -> None:
    """What ps -o comm and top show: the first 15 bytes (prctl(2), PR_SET_NAME)."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, ctypes.c_char_p(name.encode()[:_NAME_BYTES]), 0, 0, 0)
