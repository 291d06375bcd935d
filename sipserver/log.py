"""Structured logs by structlog: JSON lines for machines, a readable form for a terminal.

Owns the processors and the redaction. Speech, digits, phone numbers and keys go into the fields named in `PRIVATE`,
never into message text; unless the settings say otherwise they leave as a length or as last digits only.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

PRIVATE = frozenset(
    {"text", "heard", "digits", "digit", "from_uri", "to_uri", "caller", "callee", "arguments", "result", "value"}
)
SECRET = frozenset({"api_key", "password", "authorization", "secret", "token"})


def redact(_logger: Any, _method: str, entry: dict[str, Any]) -> dict[str, Any]:
    """structlog processor: hides private fields, drops secret ones."""
    for key in entry.keys() & PRIVATE:
        entry[key] = f"[{len(str(entry[key]))} characters]"
    for key in entry.keys() & SECRET:
        entry[key] = "[secret]"
    return entry


def setup(level: str = "info", form: str = "json", private: bool = False) -> None:
    """Configure structlog and the standard library's logging for the process. Call once, before anything logs."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
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
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(
        stream=sys.stderr, level=max(number, logging.WARNING), format="%(levelname)s %(name)s %(message)s"
    )


def logger(room: str, **fields: Any) -> Any:
    """A logger bound to a room's name and, per call, to `call` and `tenant`."""
    return structlog.get_logger().bind(room=room, **fields)
