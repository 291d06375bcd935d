"""PJSIP's own log lines, handed to structlog."""

from __future__ import annotations

import re
from typing import Any

import pjsua2 as pj

from sipserver.log import logger
from sipserver.sip.message import redact

_METHODS = {1: "error", 2: "warning", 3: "info"}
_USER = re.compile(r"(sips?:|tel:)[^@\s>;]+", re.I)


class LogWriter(pj.LogWriter):  # type: ignore[misc]
    """Called on any of PJSIP's threads, the media clock's among them; at level 1 only when something is wrong.

    A single line is logged as `line` with the users of its URIs hidden; whole SIP messages are private `text`.

    PJSIP deletes its writer in `libDestroy`: hand it over with `given()`.
    """

    def write(self, entry: Any) -> None:
        try:
            text = entry.msg.strip()
            content = {"text": redact(text)} if "\n" in text else {"line": _USER.sub(r"\1...", text)}
            method = _METHODS.get(entry.level, "debug")
            getattr(logger("sip"), method)("pjsip", pjsip_level=entry.level, thread=entry.threadName.strip(), **content)
        except Exception:  # nothing may pass through C++ frames
            return

    def given(self) -> Any:
        """The writer, owned by PJSIP from now on."""
        return self.__disown__()
