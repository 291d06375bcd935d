"""Structured logs by structlog: JSON lines for machines, a readable form for a terminal.

Owns the processors, the redaction and the way out to stderr. Speech, digits, phone numbers and keys go into the fields
named in `PRIVATE`, never into message text; unless the settings say otherwise they leave as a length or as last digits
only.

A full disk or a pipe that nobody reads blocks whoever writes to it. So a server writes its lines `background`: they
wait in a bounded queue for a thread of their own, and what does not fit is dropped and counted in a later line.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import structlog

PRIVATE = frozenset(
    {"text", "heard", "digits", "digit", "from_uri", "to_uri", "caller", "callee", "arguments", "result", "value"}
)
SECRET = frozenset({"api_key", "password", "authorization", "secret", "token"})


MOST_LINES = 10_000
"""Lines that wait for the disk; the newest beyond it are dropped."""
FLUSH_S = 2.0
"""How long the end of a process waits for its last lines."""


def redact(_logger: Any, _method: str, entry: dict[str, Any]) -> dict[str, Any]:
    """structlog processor: hides private fields, drops secret ones."""
    for key in entry.keys() & PRIVATE:
        entry[key] = f"[{len(str(entry[key]))} characters]"
    for key in entry.keys() & SECRET:
        entry[key] = "[secret]"
    return entry


class Output:
    """The stream behind every logger of the process: straight to stderr, or through the queue of `background`.

    `write` never blocks while the thread runs; any thread.
    """

    def __init__(self, most_lines: int = MOST_LINES) -> None:
        self._most_lines = most_lines
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._write: Callable[[str], None] = lambda _line: None
        self.dropped = 0
        """Lines that did not fit or could not be written, and that no line has told of yet."""

    def write(self, line: str) -> int:
        if self._thread is None:
            sys.stderr.write(line)
        elif threading.current_thread() is self._thread:
            self._try(line)
        elif self._lines.qsize() < self._most_lines:
            self._lines.put(line)
        else:
            self.dropped += 1
        return len(line)

    def flush(self) -> None:
        if self._thread is None:
            sys.stderr.flush()

    def start(self) -> None:
        """Write in a thread from now on. After a fork, never before one."""
        self._write = _writer()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = FLUSH_S) -> None:
        """Write what waits, for as long as the timeout lets us; then lines go straight to stderr again."""
        thread = self._thread
        if thread is None:
            return
        self._lines.put(None)
        thread.join(timeout_s)
        if not thread.is_alive():  # else it is stuck, and whoever logs now must not be
            self._thread = None

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            self._try(line)
            if self.dropped and self._lines.empty():
                self._tell()
        if self.dropped:
            self._tell()

    def _tell(self) -> None:
        dropped, self.dropped = self.dropped, 0
        logger("log").warning("lines dropped: the log could not be written fast enough", lines=dropped)

    def _try(self, line: str) -> None:
        try:
            self._write(line)
        except (OSError, ValueError):  # the reader has gone, the disk is full, the stream is closed
            self.dropped += 1


def _writer() -> Callable[[str], None]:
    """Writes past Python's buffers: a thread that hangs within them would take the end of the process with it."""
    try:
        descriptor = sys.stderr.fileno()
    except (OSError, ValueError):  # something else stands in for it
        stream = sys.stderr

        def write_text(line: str) -> None:
            stream.write(line)

        return write_text

    def write_bytes(line: str) -> None:
        payload = line.encode(errors="backslashreplace")
        while payload:
            payload = payload[os.write(descriptor, payload) :]

    return write_bytes


_output = Output()
_libraries = logging.StreamHandler(_output)
"""For what libraries log."""


@contextlib.contextmanager
def background() -> Iterator[None]:
    """Nobody waits for the log while this runs; at its end the last lines are written."""
    _output.start()
    try:
        yield
    finally:
        _output.stop()


def setup(level: str = "info", form: str = "json", private: bool = False, *, process: str = "", node: str = "") -> None:
    """Configure structlog and the standard library's logging for the process, before anything logs; again after a fork.

    Lines of libraries have the same form, with `logger` for `room`; those below warnings are left out.

    process, node: which of a fleet's processes on which machine speaks; on every line, with the pid, unless empty.
    """
    origin = {"node": node, "process": process, "pid": os.getpid()} if process else {}

    def say_origin(_logger: Any, _method: str, entry: dict[str, Any]) -> dict[str, Any]:
        return {**entry, **origin}

    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        say_origin,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    if not private:
        shared.append(redact)
    renderer: Any = structlog.processors.JSONRenderer() if form == "json" else structlog.dev.ConsoleRenderer()
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(_output),  # type: ignore[arg-type]  # write and flush are enough
        cache_logger_on_first_use=False,
    )
    _libraries.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.addHandler(_libraries)
    root.setLevel(max(number, logging.WARNING))


def logger(room: str, **fields: Any) -> Any:
    """A logger bound to a room's name and, per call, to `call` and `tenant`.

    It asks for each line what `setup` said last, so that one made before, by a module at its import, obeys as well.
    That takes some microseconds: who logs often calls `bind` once the process is set up.
    """
    return structlog.get_logger(room=room, **fields)
