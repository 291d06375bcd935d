"""PJSIP's own log lines, handed to structlog."""

from __future__ import annotations

import re
from typing import Any

import pjsua2 as pj

from sipserver.log import logger
from sipserver.sip.message import redact

_METHODS = {1: "error", 2: "warning", 3: "info"}
_MESSAGE = re.compile(r"\b(?:INVITE|SIP/2\.0|Via:)", re.I)


class LogWriter(pj.LogWriter):  # type: ignore[misc]
    """Called on any of PJSIP's threads, the media clock's among them; at level 1 only when something is wrong.

    PJSIP deletes its writer in `libDestroy`: hand it over with `given()`.
    """

    def write(self, entry: Any) -> None:
        try:
            text = entry.msg.strip()
            method = _METHODS.get(entry.level, "debug")
            getattr(logger("sip"), method)(
                "pjsip", pjsip_level=entry.level, thread=entry.threadName.strip(), text=redact(text)
            )
        except Exception:  # nothing may pass through C++ frames
            return

    def given(self) -> Any:
        """The writer, owned by PJSIP from now on."""
        return self.__disown__()
