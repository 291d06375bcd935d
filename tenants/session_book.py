"""Sessions of all people: begun, recognised, ended.

Owns how long they last. Nothing is remembered: a session that ends anywhere is over everywhere at the next request.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from sipserver.store.sessions import SessionRow, SessionRows
from sipserver.tenants import users
from sipserver.tenants.settings import LoginSettings
from sipserver.tenants.user_book import LetIn, user_of
from sipserver.tenants.users import Session, User

MOST_SESSIONS = 20
"""Of one user; one more ends the oldest."""
SEEN_EVERY = timedelta(seconds=60)
"""How exact `seen_at` is, unless sessions may be idle for less than ten times that."""
MOST_AGENT, MOST_SOURCE, MOST_TOKEN = 256, 128, 256


class SessionBook:
    """Loop thread. Raises what the database raises. clock: now, aware."""

    def __init__(
        self,
        rows: SessionRows,
        settings: LoginSettings,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._rows, self._clock = rows, clock
        self._idle = timedelta(minutes=settings.idle_min)
        self._lives = timedelta(hours=settings.hours)

    async def begin(self, who: LetIn, source: str, agent: str, before: str = "") -> tuple[Session, str] | None:
        """The session and the text for the cookie; None when the user was disabled, or has a new password, meanwhile.
        before: the cookie that came, whose session ends.
        """
        if who.user is None:
            return None
        token, now = users.new_token(), self._clock()
        row = SessionRow(
            digest=users.digest_of(token),
            id=uuid.uuid4().hex,
            user_id=who.user.id,
            created_at=now,
            seen_at=now,
            expires_at=now + self._lives,
            source=source[:MOST_SOURCE],
            agent=agent.replace("\x00", "")[:MOST_AGENT],
        )
        if not await self._rows.begin(row, who.password, keep=MOST_SESSIONS):
            return None
        if before:
            await self._rows.end(users.digest_of(before))
        return _session(row, users.csrf_of(token)), token

    async def recognise(self, token: str) -> tuple[Session, User] | None:
        """Whose session this is; None for one that is unknown, idle for too long, or over."""
        if not token or len(token) > MOST_TOKEN:
            return None
        found = await self._rows.get(users.digest_of(token))
        if found is None:
            return None
        row, user = found
        session, now = _session(row, users.csrf_of(token)), self._clock()
        if user.disabled_at is not None or not session.is_good(now, self._idle):
            return None
        if now - row.seen_at >= min(SEEN_EVERY, self._idle / 10):
            await self._rows.seen(row.digest, now)
            session = dataclasses.replace(session, seen_at=now)
        return session, user_of(user)

    async def list(self, user_id: str) -> Sequence[Session]:
        """Those that are good, the newest first."""
        now = self._clock()
        sessions = [_session(row) for row in await self._rows.list(user_id)]
        return [session for session in sessions if session.is_good(now, self._idle)]

    async def end(self, session: Session) -> None:
        await self._rows.end(session.digest)

    async def end_one(self, user_id: str, session_id: str) -> bool:
        """Whether the user had such a session."""
        return await self._rows.end_one(user_id, session_id)

    async def end_others(self, session: Session) -> int:
        """How many the user had beside this one."""
        return await self._rows.end_others(session.user_id, session.digest)


def _session(row: SessionRow, csrf: str = "") -> Session:
    return Session(
        row.id, row.digest, row.user_id, row.created_at, row.seen_at, row.expires_at, row.source, row.agent, csrf
    )
