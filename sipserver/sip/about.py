"""What the linked PJSIP is: version and calls it holds. `python -m sipserver.sip.about` prints both as JSON.

Owns one throw-away endpoint without transports. Meant for a process of its own (`sipserver doctor` starts one): there
may be only one endpoint a process, and a library that aborts then ends nobody else.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass

import pjsua2 as pj

from sipserver.sip import capacity


@dataclass(frozen=True, slots=True)
class PjsipFacts:
    """calls: how many the library holds at a time; None if it cannot be asked without placing calls."""

    version: str
    calls: int | None


def pjsip() -> PjsipFacts:
    """Start an endpoint, ask, end it. The calling thread becomes PJSIP's main thread. Raises pj.Error."""
    endpoint = pj.Endpoint()
    endpoint.libCreate()
    try:
        settings = pj.EpConfig()
        settings.logConfig.level = settings.logConfig.consoleLevel = 0
        settings.uaConfig.threadCnt = 0
        settings.uaConfig.maxCalls = capacity.ASK_FOR
        endpoint.libInit(settings)
        return PjsipFacts(str(endpoint.libVersion().full), capacity.read())
    finally:
        endpoint.libDestroy()


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(pjsip())) + "\n")  # PJSIP's own lines may stand before and after it
