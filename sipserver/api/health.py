"""Is the process alive, and would a call be answered and spoken to?

Owns the two answers and their JSON. Refuses to know what is checked: the composition root gives the checks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiohttp import web


@dataclass(frozen=True, slots=True)
class Check:
    """One thing a call needs. name: short and stable (`sip`, `dialplans`, `stt.whisper`). why: for people."""

    name: str
    ok: bool
    why: str = ""


Readiness = Callable[[], Sequence[Check]]
"""Everything that an answered and spoken-to call needs. Loop thread; reads what is already known, never blocks."""


def routes(readiness: Readiness) -> list[web.RouteDef]:
    """GET and HEAD of /healthz (200 whenever the loop runs) and /readyz (200, or 503 with the reasons)."""

    async def healthz(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(_request: web.Request) -> web.Response:
        checks = readiness()
        reasons = [{"check": check.name, "why": check.why} for check in checks if not check.ok]
        if not checks:
            reasons = [{"check": "server", "why": "starting"}]
        return web.json_response({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)

    return [web.get("/healthz", healthz), web.get("/readyz", readyz)]
