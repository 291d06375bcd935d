"""The warm parent: a process that has imported everything, read settings and dialplans, and does nothing but fork.

`python -m sipserver.fleet.zygote`, started by `warm_parent.py`. Owns the fork. Refuses to have a thread, a loop or
anything else that does not survive a fork, and to know what happens to its children: each is forked twice, so that it
belongs to the supervisor (a subreaper, prctl(2)) from its first moment, lives on when the warm parent dies, and is
waited for by the one who cares.

On the descriptor, a pair of SOCK_SEQPACKET sockets, every message is one JSON object. First `{"warm": milliseconds}` or
`{"refused": reason, "config": bool}`; then for each request (the fields of a ChildSpec, with the child's control
socket) `{"run": ..., "pid": ...}` or `{"run": ..., "error": ...}`.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any

from sipserver import log, settings
from sipserver.errors import ConfigError, InternalError
from sipserver.fleet.process import ChildSpec, Kinds, live, node_name, resolve, set_process_name
from sipserver.settings import Settings

MOST_BYTES = 65_536
_OWN_FIELDS = {"settings", "settings_file", "warm"}


@dataclass(frozen=True, slots=True)
class Warmth:
    """What every child begins with."""

    settings_file: Path
    settings: Settings
    kinds: Kinds
    preloaded: dict[str, Any]


def warm_up(settings_file: Path, table: str, strict: bool) -> Warmth:
    """Import and read everything; strict as in `Preload`.

    Raises ConfigError for files, ImportError for kinds that are not there, InternalError for one that leaves a thread.
    """
    loaded = settings.load(settings_file)
    log.setup(loaded.log.level, loaded.log.format, loaded.log.private, process="warm-parent", node=node_name(loaded))
    kinds: Kinds = resolve(table)
    made: dict[str, Any] = {}  # kinds that name the same share what it makes
    for kind in kinds.values():
        if kind.warm:
            import_module(kind.main.partition(":")[0])
        if kind.preload and kind.preload not in made:
            made[kind.preload] = resolve(kind.preload)(loaded, strict)
    preloaded = {name: made[kind.preload] for name, kind in kinds.items() if kind.preload}
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        raise InternalError(f"{threads - 1} threads run after the imports; a fork would lose them")
    return Warmth(settings_file, loaded, kinds, preloaded)


def encode(spec: ChildSpec) -> bytes:
    """What the warm parent does not know by itself."""
    return json.dumps(
        {field.name: getattr(spec, field.name) for field in fields(spec) if field.name not in _OWN_FIELDS}
    ).encode()


def decode(message: bytes, warmth: Warmth) -> ChildSpec:
    request = json.loads(message)
    request["rtp_ports"] = tuple(request["rtp_ports"])
    return ChildSpec(
        **request,
        settings_file=warmth.settings_file,
        settings=warmth.settings,
        warm=warmth.preloaded.get(request["kind"]),
    )


def serve(channel: socket.socket, warmth: Warmth) -> None:
    """Fork what is asked for until the supervisor is gone. Raises BrokenPipeError when it went before our answer; the
    child sees the end of its own line."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, MOST_BYTES, 1)
        if not message:
            return
        spec = decode(message, warmth)
        with socket.socket(fileno=descriptors[0]) as control_socket:
            answer = {"run": spec.run, **_fork(spec, channel, control_socket, warmth)}
        channel.send(json.dumps(answer).encode())


def _fork(
    spec: ChildSpec, channel: socket.socket, control_socket: socket.socket, warmth: Warmth
) -> dict[str, int | str]:
    reading, writing = os.pipe()
    try:
        between = os.fork()
        if between == 0:
            _leave(spec, channel, control_socket, warmth, (reading, writing))
        os.close(writing)
        writing = -1
        pid = os.read(reading, 16)
        os.waitpid(between, 0)  # now the child is the supervisor's
    except OSError as problem:
        return {"error": str(problem)}
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)
    return {"pid": int(pid)} if pid else {"error": "the second fork failed"}


def _leave(
    spec: ChildSpec, channel: socket.socket, control_socket: socket.socket, warmth: Warmth, pipe: tuple[int, int]
) -> None:
    """The process in between: forks the child, says its pid, and is gone. Never returns, nor does the child."""
    code = 1
    try:
        child = os.fork()
        if child:
            os.write(pipe[1], str(child).encode())
            code = 0
            return
        for descriptor in pipe:
            os.close(descriptor)
        channel.close()
        gc.enable()
        code = live(spec, warmth.kinds[spec.kind].main, control_socket)
    finally:
        os._exit(code)


def main(arguments: list[str]) -> int:
    """descriptor, settings file, table of kinds, `strict` or `lenient`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    set_process_name("sipserver-warm")
    channel = socket.socket(fileno=int(arguments[0]))
    began = time.monotonic()
    gc.disable()  # what is imported stays, and a collection in the parent of others would unshare pages
    try:
        warmth = warm_up(Path(arguments[1]), arguments[2], arguments[3] == "strict")
    except (ConfigError, InternalError, ImportError, AttributeError) as problem:
        refusal = {"refused": f"{problem}", "config": isinstance(problem, ConfigError)}
        channel.send(json.dumps(refusal).encode())
        return 1
    gc.collect()
    gc.freeze()
    with contextlib.suppress(BrokenPipeError):  # nobody waits for us any more
        channel.send(json.dumps({"warm": round((time.monotonic() - began) * 1000)}).encode())
        serve(channel, warmth)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
