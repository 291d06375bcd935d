"""One attempt: a POST over HTTPS, and what came back.

Owns the connections and every limit of an attempt. Refuses to follow redirects, to take cookies, to unpack answers, to
read more of one than LONGEST_ANSWER, and to connect to an address that `targets` does not permit. Knows no retries.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp
from aiohttp.abc import AbstractResolver

from sipserver import __version__
from sipserver.errors import CallerError
from sipserver.open_files import high_socket
from sipserver.webhooks.settings import WebhookSettings
from sipserver.webhooks.targets import CheckedResolver, Forbidden, Targets

LONGEST_ANSWER = 16 * 1024
SHOWN_BYTES = 1000
KEPT_S = 4.0
"""How long an idle connection is used again: servers close theirs after five seconds or more, and a POST that meets the
end of its connection counts as failed.
"""
LONGEST_ERROR = 256
HEADERS = {
    "Content-Type": "application/json",
    "User-Agent": f"sipserver/{__version__}",
    "Accept": "*/*",
    "Accept-Encoding": "identity",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """status: of HTTP; None: there was none, and error says why. body: its first bytes, as text."""

    status: int | None
    latency_ms: int
    error: str = ""
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


class Sender:
    """Loop thread; `close` after use. lookup, trust: how names are resolved and whose certificates are believed, if not
    as the machine has it.
    """

    def __init__(
        self,
        settings: WebhookSettings,
        *,
        lookup: AbstractResolver | None = None,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self._settings = settings
        self._targets = Targets(allow_private=settings.allow_private)
        self._lookup, self._trust = lookup, trust
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    async def post(self, url: str, payload: bytes, headers: Mapping[str, str], *, kept: int = SHOWN_BYTES) -> Answer:
        """Raises nothing but CancelledError. A status counts even when the rest of the answer does not come.

        kept: bytes of the answer's body.
        """
        began = time.monotonic()
        status: int | None = None
        found: dict[str, str] = {}
        body = bytearray()
        error = ""
        try:
            target = self._targets.check(url)
            request = self._session(target.scheme).post(
                target, data=payload, headers={**HEADERS, **headers}, allow_redirects=False
            )
            async with request as response:
                status, found = response.status, dict(response.headers)
                latency_ms = _since(began)
                with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                    await _read(response, body)
                return Answer(status, latency_ms, "", _text(body[:kept]), response.headers.copy())
        except CallerError as problem:
            error = str(problem)
        except TimeoutError:
            error = "no answer in time"
        except (aiohttp.ClientError, OSError, ValueError) as problem:
            error = _said(problem)
        return Answer(status, _since(began), error[:LONGEST_ERROR], _text(body[:kept]), found)

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    def _session(self, scheme: str) -> aiohttp.ClientSession:
        """One for each scheme: which addresses are permitted depends on it."""
        session = self._sessions.get(scheme)
        if session is None:
            lookup = self._lookup or aiohttp.ThreadedResolver()
            connector = aiohttp.TCPConnector(
                resolver=CheckedResolver(lookup, self._targets, scheme),
                use_dns_cache=False,
                limit=self._settings.connections,
                keepalive_timeout=KEPT_S,
                ssl=self._trust or True,
                socket_factory=high_socket,
            )
            timeout = aiohttp.ClientTimeout(
                total=self._settings.timeout_s, sock_connect=self._settings.connect_timeout_s
            )
            session = self._sessions[scheme] = aiohttp.ClientSession(
                connector=connector,
                timeout=timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return session


async def _read(response: aiohttp.ClientResponse, body: bytearray) -> None:
    """At most LONGEST_ANSWER; then the connection is closed, for the rest would have to be read before its next use."""
    while len(body) < LONGEST_ANSWER:
        part = await response.content.read(LONGEST_ANSWER - len(body))
        if not part:
            return
        body += part
    response.close()


def _since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


def _text(body: bytearray) -> str:
    """NUL is no character for PostgreSQL."""
    return bytes(body).decode(errors="replace").replace("\x00", "\ufffd")


def _said(problem: BaseException) -> str:
    cause = problem.__cause__ or problem
    if isinstance(problem, aiohttp.ClientConnectorDNSError) and isinstance(problem.os_error, Forbidden):
        return str(problem.os_error)
    return f"{type(problem).__name__}: {cause}"
