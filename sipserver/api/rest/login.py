"""People by REST: log in with a password, see who one is, end sessions, log out.

Owns that an answer tells nothing of which users there are: not by its words, nor by how long it takes. Refuses to know
how passwords and sessions are kept.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from aiohttp import hdrs, web

from sipserver.api.rest import people_models as models
from sipserver.api.rest.access import Who
from sipserver.api.rest.cookies import Cookies
from sipserver.api.rest.deeds import Deed, Note
from sipserver.api.rest.operations import Answered, Asked, Operation
from sipserver.errors import NotAllowed, NotFound, SipServerError, TooMany, Unauthorized
from sipserver.gate.buckets import Buckets
from sipserver.gate.requests import address_of, is_own_page
from sipserver.log import logger
from sipserver.tenants import principal
from sipserver.tenants.principal import Principal
from sipserver.tenants.session_book import SessionBook
from sipserver.tenants.settings import LoginSettings
from sipserver.tenants.user_book import LetIn, UserBook
from sipserver.tenants.users import Session

BURST = 10
STEP_S = 0.25
"""A refusal takes a multiple of it: how long the database and the hash took does not show."""
REFUSED = "the tenant, the e-mail address or the password is wrong, or there were too many wrong ones: wait a while"

_log = logger("api")


class Entrance:
    """What is the same however somebody comes in. Loop thread."""

    def __init__(
        self,
        sessions: SessionBook,
        cookies: Cookies,
        note: Note,
        settings: LoginSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cookies, self.note, self._sessions = cookies, note, sessions
        self._attempts = Buckets(settings.per_address_per_s, max(BURST, settings.per_address_per_s), clock)

    def check(self, request: web.Request) -> None:
        """Raises TooMany of one address."""
        if not self._attempts.take(address_of(request)):
            raise TooMany("too many attempts to log in from this address")

    async def begin(self, who: LetIn, request: web.Request, way: str) -> tuple[Principal, str] | None:
        """A session and its cookie's text; the one that the browser had is over. way: for the audit log."""
        address, agent = address_of(request), request.headers.get(hdrs.USER_AGENT, "")
        begun = await self._sessions.begin(who, address, agent, before=self.cookies.session(request))
        if begun is None or who.user is None:
            return None
        came = principal.of_user(who.user, begun[0])
        await self.note(came, "user.logged_in", f"user:{came.id}", address, {"by": way})
        return came, begun[1]


class LoginOperations:
    """Loop thread."""

    def __init__(self, users: UserBook, sessions: SessionBook, entrance: Entrance, settings: LoginSettings) -> None:
        self._users, self._sessions, self._entrance, self._settings = users, sessions, entrance, settings

    def operations(self) -> Sequence[Operation]:
        known, person = Who.KNOWN, Who.PERSON
        return [
            Operation(
                "login",
                "POST",
                "/login",
                Who.ANYBODY,
                self._login,
                "Log in with a password",
                "The answer sets the cookie of a new session.",
                body=models.Login,
                answer=models.Me,
            ),
            Operation(
                "logout",
                "POST",
                "/logout",
                person,
                self._logout,
                "Log out",
                status=204,
                deed="user.logged_out",
                of="session",
            ),
            Operation("whoAmI", "GET", "/me", known, self._me, "See who asks", answer=models.Me),
            Operation(
                "changePassword",
                "POST",
                "/me/password",
                person,
                self._password,
                "Change one's password",
                "All one's sessions end, and a new one begins.",
                body=models.ChangePassword,
                answer=models.Me,
                refusals=(400,),
            ),
            Operation(
                "listSessions", "GET", "/sessions", person, self._list, "List one's sessions", answer=models.Sessions
            ),
            Operation(
                "endOtherSessions",
                "DELETE",
                "/sessions",
                person,
                self._end_others,
                "End one's sessions, all but this one",
                status=204,
                deed="session.ended",
                of="session",
            ),
            Operation(
                "endSession",
                "DELETE",
                "/sessions/{session}",
                person,
                self._end_one,
                "End one of one's sessions",
                status=204,
                deed="session.ended",
                of="session",
            ),
        ]

    async def _login(self, asked: Asked) -> web.StreamResponse:
        wanted: models.Login = asked.body
        if not self._settings.passwords:
            raise NotAllowed("nobody logs in with a password here: use the OpenID provider")
        if not is_own_page(asked.request, self._entrance.cookies.gate):
            raise NotAllowed("pages of another origin may not log in")
        self._entrance.check(asked.request)
        began_s = time.monotonic()
        found = await self._users.let_in(wanted.tenant, wanted.email, wanted.password)
        begun = await self._entrance.begin(found, asked.request, "password")
        if begun is not None:
            return self._came_in(asked.request, *begun)
        if found.locked is not None:
            system = principal.of_system(found.locked.tenant)
            subject = f"user:{found.locked.id}"
            await self._entrance.note(
                system, "user.locked", subject, address_of(asked.request), {"email": wanted.email}
            )
        _log.info("a login was refused", address=address_of(asked.request), locked=found.locked is not None)
        await asyncio.sleep(STEP_S - (time.monotonic() - began_s) % STEP_S)
        raise Unauthorized(REFUSED)

    async def _logout(self, asked: Asked) -> web.StreamResponse:
        await self._sessions.end(_session(asked))
        response = web.Response(status=204)
        self._entrance.cookies.drop_session(asked.request, response)
        return response

    async def _me(self, asked: Asked) -> Answered:
        return Answered(models.Me.of(asked.key))

    async def _password(self, asked: Asked) -> web.StreamResponse:
        wanted: models.ChangePassword = asked.body
        self._entrance.check(asked.request)
        if not await self._users.is_password(asked.key.id, wanted.current):
            raise NotAllowed("the current password is not this one, or there were too many wrong ones: wait a while")
        address, renewed = address_of(asked.request), {"renewed": "password"}
        deed = Deed(self._entrance.note, asked.key, "user.changed", of="user", which=asked.key.id, source=address)
        await deed.ask(renewed)
        try:
            await self._users.change(asked.key.id, tenant=asked.key.tenant, password=wanted.new)
        except Exception as refused:
            await deed.failed(getattr(refused, "http_code", 500))
            raise
        await deed.done("", renewed)
        found = await self._users.let_in(asked.key.tenant, asked.key.name, wanted.new)
        begun = await self._entrance.begin(found, asked.request, "password")
        if begun is None:
            raise Unauthorized("the account was changed meanwhile: log in again")
        return self._came_in(asked.request, *begun)

    async def _list(self, asked: Asked) -> Answered:
        own = _session(asked)
        sessions = [models.Session.of(each, own) for each in await self._sessions.list(asked.key.id)]
        return Answered(models.Sessions(sessions=sessions))

    async def _end_others(self, asked: Asked) -> Answered:
        count = await self._sessions.end_others(_session(asked))
        return Answered(None, 204, detail={"others": count})

    async def _end_one(self, asked: Asked) -> Answered:
        if not await self._sessions.end_one(asked.key.id, asked.path["session"]):
            raise NotFound("there is no such session")
        return Answered(None, 204)

    def _came_in(self, request: web.Request, who: Principal, token: str) -> web.Response:
        response = web.Response(text=models.Me.of(who).model_dump_json(), content_type="application/json")
        self._entrance.cookies.put_session(request, response, token)
        return response


def _session(asked: Asked) -> Session:
    if asked.key.session is None:
        raise SipServerError("an operation for people was asked by a program")
    return asked.key.session
