"""The HTTP server: which paths exist, how errors look, when it starts and stops.

Owns the listening socket and what every answer has in common: JSON errors, security headers, no version in sight.
Refuses to know calls, engines and sockets of other rooms; what it shows comes from the callables it is given.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from aiohttp import web, web_response
from aiohttp.http import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

from sipserver.api.acceptor import Site, bound, bound_at
from sipserver.api.health import Readiness
from sipserver.api.health import routes as health_routes
from sipserver.api.settings import HttpSettings
from sipserver.api.trunks import TrunkStates
from sipserver.api.trunks import routes as trunk_routes
from sipserver.errors import SettingsError, SipServerError, Unauthorized
from sipserver.gate.requests import CHALLENGE
from sipserver.log import logger

HEADERS = {
    "Server": "sipserver",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""On every answer. aiohttp would otherwise put its own and Python's version into `Server`."""

EMPTY: Mapping[str, web.Application] = MappingProxyType({})
MAX_BODY_BYTES = 64 * 1024
STOP_S = 5.0
KEEP_ALIVE_S = 75.0
"""A connection that asks for nothing, or never ends the headers of its request, is closed after so long: later than
proxies close theirs (nginx: 60 s), so that none sends a request into a connection that is being closed."""
BODY_S = 30.0
"""For the body of a request to come."""
RETRY_AFTER_S = "2"

_log = logger("api")

vars(web_response)["SERVER_SOFTWARE"] = HEADERS["Server"]
"""aiohttp refuses what it cannot parse before any handler of ours, and would name itself and Python in the answer."""


class _NoBadRequests(logging.Filter):
    """Drops what aiohttp logs, with a traceback, about requests that it could not parse: the client's fault."""

    def filter(self, record: logging.LogRecord) -> bool:
        kind = record.exc_info[0] if record.exc_info else None
        return kind is None or not issubclass(kind, HttpProcessingError)


logging.getLogger("aiohttp.server").addFilter(_NoBadRequests())


class Exposition(Protocol):
    """What /metrics shows."""

    async def handle(self, _request: web.Request) -> web.StreamResponse: ...


class HttpServer:
    """`start`, use `port`, `stop`. Loop thread.

    routes: what other rooms answer by HTTP. reuse_port: several processes share the port and the kernel spreads the
    connections. socket_path: listen on this Unix socket (mode 0600) instead of host and port; an old one there is
    replaced. side_path: a second, Unix socket, which stays open when the door is closed. middlewares: between the
    errors, which are shown as JSON, and the routes. apps: mounted below their prefixes.
    """

    def __init__(
        self,
        settings: HttpSettings,
        readiness: Readiness,
        metrics: Exposition,
        *,
        trunks: TrunkStates | None = None,
        routes: Sequence[web.RouteDef] = (),
        reuse_port: bool = False,
        socket_path: Path | None = None,
        side_path: Path | None = None,
        middlewares: Sequence[Middleware] = (),
        apps: Mapping[str, web.Application] = EMPTY,
    ) -> None:
        self._settings, self._reuse_port = settings, reuse_port
        self._socket_path, self._side_path = socket_path, side_path
        app = application(readiness, metrics, trunks, routes, middlewares, apps)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_S, keepalive_timeout=KEEP_ALIVE_S)
        self._site: Site | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """The port that is bound; 0 before `start`. Differs from the settings when those say 0."""
        return self._port

    async def start(self) -> None:
        """Bind and listen. Raises SettingsError when the address is taken or not ours."""
        await self._runner.setup()
        host, port, path = self._settings.host, self._settings.port, self._socket_path
        try:
            if self._side_path is not None:
                await self._listen([bound_at(self._side_path)])
            if path is not None:
                self._site = await self._listen([bound_at(path)])
            else:
                listeners = await bound(host, port, reuse_port=self._reuse_port)
                self._port = int(listeners[-1].getsockname()[1])
                self._site = await self._listen(listeners)
        except OSError as problem:
            await self._runner.cleanup()
            self._port = 0
            where = path or f"{host}:{port}"
            raise SettingsError(f"cannot listen on {where}: {problem.strerror}", key="http.port") from problem

    async def _listen(self, listeners: Sequence[socket.socket]) -> Site:
        site = Site(self._runner, listeners)
        await site.start()
        return site

    async def close_door(self) -> None:
        """Take no new connections; those that are there go on. Idempotent."""
        site, self._site = self._site, None
        if site is not None:
            await site.stop()

    async def stop(self) -> None:
        """Close the listening socket, let requests in flight finish for STOP_S seconds, then cut them. Idempotent."""
        await self._runner.cleanup()


def application(
    readiness: Readiness,
    metrics: Exposition,
    trunks: TrunkStates | None = None,
    routes: Sequence[web.RouteDef] = (),
    middlewares: Sequence[Middleware] = (),
    apps: Mapping[str, web.Application] = EMPTY,
) -> web.Application:
    """The routes and what all of them share, without a socket. routes: those of other rooms."""
    app = web.Application(middlewares=[errors_as_json, _body_in_time, *middlewares], client_max_size=MAX_BODY_BYTES)
    app.on_response_prepare.append(_add_headers)
    app.add_routes([*health_routes(readiness), *trunk_routes(trunks), *routes, web.get("/metrics", metrics.handle)])
    for prefix, mounted in apps.items():
        app.add_subapp(prefix, mounted)
    return app


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """A page that needs other headers than these sets its own."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every refusal is `{"error": {"status": ..., "message": ...}}`; a bug of ours tells the log, not the client."""
    try:
        return await handler(request)
    except web.HTTPMethodNotAllowed as refusal:
        allowed = ", ".join(sorted(refusal.allowed_methods))
        return _error(405, f"{request.method} is not allowed here", {"Allow": allowed})
    except web.HTTPException as refusal:
        return _error(refusal.status, refusal.reason)
    except SipServerError as problem:
        headers = {"Retry-After": RETRY_AFTER_S} if problem.retry else {}
        return _error(
            problem.http_code, str(problem), headers | (CHALLENGE if isinstance(problem, Unauthorized) else {})
        )
    except Exception:
        _log.exception("a request failed", path=request.path, method=request.method)
        return _error(500, "internal error")


@web.middleware
async def _body_in_time(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Whoever reads a body that does not come gets 408 instead of waiting for ever."""
    if request.content.is_eof():
        return await handler(request)
    cut = asyncio.get_running_loop().call_later(BODY_S, request.content.set_exception, web.HTTPRequestTimeout())
    try:
        return await handler(request)
    finally:
        cut.cancel()


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": {"status": status, "message": message}}, status=status, headers=headers)
