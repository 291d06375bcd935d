"""The trunks' states as JSON, for `sipserver trunks` and whoever watches. Owns the path; is given what it shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiohttp import web

TrunkStates = Callable[[], Sequence[Mapping[str, Any]]]
"""One mapping a trunk: name, state, up, registration, reachable, reason, since (Unix time), calls. Loop thread."""


def routes(states: TrunkStates | None) -> list[web.RouteDef]:
    """GET and HEAD of /trunks: `{"trunks": [...]}`. None: a process that has no trunks does not have the path."""

    async def trunks(_request: web.Request) -> web.Response:
        assert states is not None
        return web.json_response({"trunks": [dict(state) for state in states()]})

    return [] if states is None else [web.get("/trunks", trunks)]
