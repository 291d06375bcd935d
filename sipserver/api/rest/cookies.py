"""The cookies of people who log in: their names, and what browsers are told about them.

Owns that they never leave by plain HTTP where we are reached by https. Refuses to know what is in them.
"""

from __future__ import annotations

from aiohttp import web

from sipserver.gate.requests import public_url
from sipserver.gate.settings import GateSettings

SESSION, LOGIN = "sipserver-session", "sipserver-login"
"""The second one lives from the way to an OpenID provider until the way back."""
LOGIN_S = 600


class Cookies:
    """`__Host-` (RFC 6265bis, 4.1.3.2): no other host, and nobody on the way, can have set the cookie. Lax: it is there
    when a link or a provider leads here, and not when another page posts.
    """

    def __init__(self, gate: GateSettings | None = None) -> None:
        self.gate = gate or GateSettings()

    def session(self, request: web.Request) -> str:
        """Empty: there is none."""
        return self._read(request, SESSION)

    def login(self, request: web.Request) -> str:
        """Empty: there is none."""
        return self._read(request, LOGIN)

    def put_session(self, request: web.Request, response: web.Response, token: str) -> None:
        """Until the browser ends: how long the session is good is the server's affair."""
        self._put(request, response, SESSION, token, None)

    def put_login(self, request: web.Request, response: web.Response, token: str) -> None:
        self._put(request, response, LOGIN, token, LOGIN_S)

    def drop_session(self, request: web.Request, response: web.Response) -> None:
        self._put(request, response, SESSION, "", 0)

    def drop_login(self, request: web.Request, response: web.Response) -> None:
        self._put(request, response, LOGIN, "", 0)

    def _read(self, request: web.Request, name: str) -> str:
        return request.cookies.get(_named(name, self._is_secure(request)), "")

    def _put(self, request: web.Request, response: web.Response, name: str, value: str, lives_s: int | None) -> None:
        secure = self._is_secure(request)
        response.set_cookie(
            _named(name, secure), value, max_age=lives_s, path="/", secure=secure, httponly=True, samesite="Lax"
        )

    def _is_secure(self, request: web.Request) -> bool:
        return public_url(request, self.gate).startswith("https:")


def _named(name: str, secure: bool) -> str:
    return f"__Host-{name}" if secure else name
