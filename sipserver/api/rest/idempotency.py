"""A request with an Idempotency-Key is done once, however often it is sent: by whichever process, over restarts.

Owns what the second one is answered. A request that is refused leaves its key free. Of one whose process died in the
middle the call is looked for; where there is none the key is free after LEASE, or LEASE_OF_CALLS. What is told once,
such as the text of an API key, is not kept. Refuses to know what operations do.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from aiohttp import web

from sipserver.api.rest.operations import IDEMPOTENCY_KEY, Asked, Operation, Work, answer_of
from sipserver.api.rest.problems import problem
from sipserver.calls.ids import new_id
from sipserver.errors import BusDown, SipServerError
from sipserver.log import logger
from sipserver.store.database import UNAVAILABLE, brief
from sipserver.store.idempotency import IdempotencyRow

KEPT = timedelta(days=1)
LEASE = timedelta(minutes=1)
"""So long is a request under way at most: every question that it asks is given up far earlier."""
LEASE_OF_CALLS = timedelta(minutes=10)
"""A call that is over has its record as soon as the writer has caught up with a database that was away."""
SWEEP_S = 600.0
SWEEP_PAUSE_S = 0.05
MOST_ANSWER = 64 * 1024
"""Characters of an answer that is kept."""
REPLAYED = "Idempotency-Replayed"
_HEADERS = ("Location", "ETag")


class Rows(Protocol):
    """As `store.idempotency.IdempotencyRows`."""

    async def claim(self, row: IdempotencyRow) -> IdempotencyRow | None: ...
    async def take_over(self, first: IdempotencyRow, row: IdempotencyRow) -> bool: ...
    async def settle(
        self, row: IdempotencyRow, status: int, headers: Mapping[str, str], answer: str | None
    ) -> None: ...
    async def release(self, row: IdempotencyRow) -> None: ...
    async def sweep(self, now: datetime) -> int: ...


class Idempotency:
    """Loop thread. Satisfies `operations.Once`."""

    def __init__(self, rows: Rows, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._rows, self._clock = rows, clock
        self._log = logger("api")

    async def __call__(self, operation: Operation, asked: Asked, work: Work) -> web.StreamResponse:
        """Do the work, or answer as the first request with this key was. Raises what the work does, and SQLAlchemy's
        errors before it. A work that is cancelled, or whose outcome nobody knows, is taken for one whose process died.
        """
        key = asked.request.headers.get(IDEMPOTENCY_KEY, "") if operation.once else ""
        if not key:
            return await work(asked)
        mine = self._row(operation, asked, key)
        first = await self._rows.claim(mine)
        earlier = None if first is None else await self._earlier(operation, asked, mine, first)
        if earlier is not None:
            return earlier
        return await self._first(operation, replace(asked, call_id=mine.call_id), mine, work)

    async def sweep(self) -> None:
        """Delete what is over, every SWEEP_S, until it is cancelled."""
        pause_s = SWEEP_S
        while True:
            await asyncio.sleep(pause_s)
            pause_s = SWEEP_S
            try:
                if await self._rows.sweep(self._clock()):
                    pause_s = SWEEP_PAUSE_S
            except UNAVAILABLE as trouble:
                self._log.warning("Idempotency-Keys that are over stay for now", error=brief(trouble))

    def _row(self, operation: Operation, asked: Asked, key: str) -> IdempotencyRow:
        now, tenant = self._clock(), asked.key.tenant
        body = "" if asked.body is None else asked.body.model_dump_json(by_alias=True, exclude_unset=True)
        return IdempotencyRow(
            id=_digest(tenant, key),
            tenant=tenant,
            request=_digest(key, operation.method, asked.request.path_qs, body),
            claim=uuid.uuid4().hex,
            call_id=new_id() if operation.finds is not None else "",
            claimed_at=now,
            until=now + KEPT,
        )

    async def _earlier(
        self, operation: Operation, asked: Asked, mine: IdempotencyRow, first: IdempotencyRow
    ) -> web.StreamResponse | None:
        """What is answered because of the first one; None: its process died and left nothing, the work is ours."""
        if first.request != mine.request:
            reason = "another request had it before"
            wrong = [{"where": f"header.{IDEMPOTENCY_KEY}", "reason": reason}]
            return problem(422, "a header is not as it should be", errors=wrong)
        if first.status is not None:
            return _again(operation, first)
        if operation.finds is not None and (found := await operation.finds(asked, first.call_id)) is not None:
            return _marked(answer_of(found))
        lease = LEASE if operation.finds is None else LEASE_OF_CALLS
        if mine.claimed_at < first.claimed_at + lease or not await self._rows.take_over(first, mine):
            return problem(409, "the first request with this Idempotency-Key is under way", {"Retry-After": "1"})
        return None

    async def _first(self, operation: Operation, asked: Asked, mine: IdempotencyRow, work: Work) -> web.StreamResponse:
        try:
            answer = await work(asked)
        except (SipServerError, web.HTTPException) as refusal:
            if _is_undone(refusal):
                await self._keep(self._rows.release(mine))
            raise
        if answer.status >= 400:
            await self._keep(self._rows.release(mine))
        else:
            headers = {name: answer.headers[name] for name in _HEADERS if name in answer.headers}
            await self._keep(self._rows.settle(mine, answer.status, headers, _kept(operation, answer)))
        return answer

    async def _keep(self, writing: Awaitable[None]) -> None:
        """What was done is answered whether or not the database still answers."""
        try:
            await writing
        except UNAVAILABLE as trouble:
            self._log.warning("how a request with an Idempotency-Key ended was not kept", error=brief(trouble))


def _is_undone(refusal: SipServerError | web.HTTPException) -> bool:
    """A bus may have carried the order before it went away; a mistake of ours may have come after the deed."""
    if isinstance(refusal, web.HTTPException):
        return refusal.status < 500
    return refusal.http_code != 500 and not isinstance(refusal, BusDown)


def _digest(*parts: str) -> str:
    """With the key, which nobody keeps, among the parts, so that no number and no password can be guessed from it."""
    return hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()


def _kept(operation: Operation, answer: web.StreamResponse) -> str | None:
    text = answer.text if isinstance(answer, web.Response) else None
    if text is None or len(text) > MOST_ANSWER:
        return None
    told: dict[str, Any] = json.loads(text)
    return json.dumps({name: value for name, value in told.items() if name != operation.told_once})


def _again(operation: Operation, first: IdempotencyRow) -> web.StreamResponse:
    """As the first one was answered; 200 where that made something; 409 where the answer is not kept."""
    if operation.told_once or first.answer is None:
        made = {} if first.answer is None else {"id": json.loads(first.answer)["id"]}
        return _marked(problem(409, "this was done before, and its answer is told once", first.headers, **made))
    status = 200 if first.status == 201 else first.status or 200
    text, headers = first.answer, dict(first.headers or {})
    return _marked(web.Response(status=status, text=text, content_type="application/json", headers=headers))


def _marked(answer: web.StreamResponse) -> web.StreamResponse:
    answer.headers[REPLAYED] = "true"
    return answer
