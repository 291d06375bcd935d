"""Webhooks out, as a whole: what the server and the REST API hold of this room.

Owns the wiring, the bound of the queue, and the housekeeping. Refuses to know requests and who may make them: whoever
calls has looked at the key, and gives the tenant whose endpoints are meant (None: an operator, who may see all).
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sipserver import log
from sipserver.bus.contract import Bus
from sipserver.errors import CallerError, NotFound
from sipserver.store.database import UNAVAILABLE, Database, brief
from sipserver.store.webhook_health import WebhookHealth
from sipserver.store.webhook_history import WebhookHistory
from sipserver.store.webhook_queue import EndpointGone, WebhookQueue
from sipserver.store.webhook_rows import AttemptRow, EndpointRow, EndpointRows, MessageRow, State
from sipserver.webhooks import holding
from sipserver.webhooks.delivery import Delivery, Post, attempt
from sipserver.webhooks.endpoints import Endpoints
from sipserver.webhooks.notices import Notice
from sipserver.webhooks.sender import Sender
from sipserver.webhooks.settings import WebhookSettings
from sipserver.webhooks.targets import Targets
from sipserver.webhooks.wanted import Announcer

TEST = "webhook.test"
COUNTED_S = 5.0
"""How old the count of what waits for an endpoint may be; what is published meanwhile is added to it."""
TIDY_EVERY_S = 3600.0


class Outgoing:
    """Loop thread. The database is the caller's, open until `stop` has returned; four connections to it are enough.
    Methods raise what the database raises, NotFound for an endpoint or a message that the tenant does not have,
    CallerError for what will not do.

    endpoints: made, listed, changed, enabled, disabled, rotated and deleted there. delivery: its counters.
    bus: where other processes hear which events somebody waits for (`wanted`). post: sends; None: over the network.
    clock: now, aware. chance: 0 to 1.
    """

    def __init__(
        self,
        database: Database,
        settings: WebhookSettings,
        *,
        bus: Bus | None = None,
        post: Post | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._settings, self._clock = settings, clock
        self._rows, self._queue, self._history = (
            EndpointRows(database),
            WebhookQueue(database),
            WebhookHistory(database),
        )
        self._sender = Sender(settings)
        self._post: Post = post or self._sender.post
        self._announcer = Announcer(bus, self._rows) if bus is not None else None
        told = {"changed": self._announcer.changed} if self._announcer is not None else {}
        targets = Targets(allow_private=settings.allow_private)
        self.endpoints = Endpoints(self._rows, self._queue, targets, clock=clock, **told)
        self._health = WebhookHealth(database)
        self.delivery = Delivery(
            self._queue, self._health, self.endpoints, self._post, settings, clock=clock, chance=chance
        )
        self._waiting: Counter[str] = Counter()
        self._full: set[str] = set()
        self._counted_at: datetime | None = None
        self._beside: list[asyncio.Task[None]] = []
        self._log = log.logger("webhooks")

    # --- lifetime -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Deliver from now on. A process that only publishes, or only asks, does not need it."""
        self.delivery.start()
        self._beside.append(asyncio.create_task(self._tidy_always(), name="webhooks tidying"))
        if self._announcer is not None:
            self._beside.append(asyncio.create_task(self._announcer.run(), name="webhooks wanted"))

    async def stop(self, within_s: float | None = None) -> None:
        """Attempts under way end, for at most within_s; what waits is delivered after the next start. Idempotent."""
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        self._beside.clear()
        await self.delivery.stop(within_s)
        await self._sender.close()

    # --- what is told -------------------------------------------------------------------------------------------------

    async def publish(self, notices: Sequence[Notice]) -> None:
        """Into the queues of the endpoints that want them, in order.

        When it returns, they survive the end of the process. When it raises, bring the same notices again: what is
        queued already is not queued twice. Messages that do not fit into an endpoint's queue are dropped and counted.
        """
        try:
            await self._publish(notices)
        except EndpointGone:
            self.endpoints.forget()
            await self._publish(notices)

    async def _publish(self, notices: Sequence[Notice]) -> None:
        now = self._clock()
        rows: list[MessageRow] = []
        dropped: Counter[str] = Counter()
        for notice in notices:
            for endpoint in await self.endpoints.interested(notice.tenant, notice.kind):
                if await self._fits(endpoint.id, now):
                    rows.append(_message(notice, endpoint, now))
                else:
                    dropped[endpoint.id] += 1
        for endpoint_id, count in dropped.items():
            if endpoint_id not in self._full:
                self._full.add(endpoint_id)
                self._log.error(
                    "the queue of a webhook endpoint is full; its newest messages are dropped", endpoint=endpoint_id
                )
            await self._rows.dropped(endpoint_id, count)
        if rows:
            await self._queue.add(rows, now)
            self.delivery.wake()

    async def _fits(self, endpoint_id: str, now: datetime) -> bool:
        if self._counted_at is None or not 0 <= (now - self._counted_at).total_seconds() < COUNTED_S:
            self._waiting.clear()
            self._full.clear()
            self._counted_at = now
        if endpoint_id not in self._waiting:
            self._waiting[endpoint_id] = await self._queue.waiting(endpoint_id)
        if self._waiting[endpoint_id] >= self._settings.queue:
            return False
        self._waiting[endpoint_id] += 1
        return True

    async def test(self, endpoint_id: str, *, tenant: str | None = None) -> AttemptRow:
        """Send a `webhook.test` now, beside the queue and once, also to an endpoint that is disabled or held; what came
        of it is listed with the deliveries, too. An answer ends a hold, and what rests between attempts is due.
        """
        endpoint, now = await self.endpoints.get(endpoint_id, tenant=tenant), self._clock()
        notice = Notice(endpoint.tenant, TEST, now, {"endpoint": endpoint_id}, key=f"test/{secrets.token_hex(16)}")
        message = _message(notice, endpoint, now)
        answer, row = await attempt(self._post, endpoint, message, now)
        if not holding.is_away(answer.status):
            await self._health.answered(endpoint_id)
            await self._queue.hurry(endpoint_id, self._clock())
            self.delivery.wake()
        await self._history.tested(_ended(message, now), row)
        kept = await self._history.attempts(endpoint_id, message_id=message.id, limit=1)
        return next(iter(kept), row)

    # --- what came of it ----------------------------------------------------------------------------------------------

    async def deliveries(
        self,
        endpoint_id: str,
        *,
        tenant: str | None = None,
        message_id: str | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> Sequence[AttemptRow]:
        """Attempts, the newest first; of one message, or of all. before: the number of the last one on the page that
        came before.
        """
        await self.endpoints.get(endpoint_id, tenant=tenant)
        return await self._history.attempts(endpoint_id, message_id=message_id, limit=limit, before=before)

    async def messages(
        self, endpoint_id: str, state: State, *, tenant: str | None = None, limit: int = 100, after: int = 0
    ) -> Sequence[MessageRow]:
        """In the order in which they were published. after: the number of the last one on the page before."""
        await self.endpoints.get(endpoint_id, tenant=tenant)
        return await self._history.messages(endpoint_id, state, limit=limit, after=after)

    async def waiting(self, endpoint_id: str, *, tenant: str | None = None) -> int:
        """How many messages wait for an endpoint, those that rest between attempts included."""
        await self.endpoints.get(endpoint_id, tenant=tenant)
        return await self._queue.waiting(endpoint_id)

    async def dead(
        self, endpoint_id: str, *, tenant: str | None = None, limit: int = 100, after: int = 0
    ) -> Sequence[MessageRow]:
        """Dead letters, with why."""
        return await self.messages(endpoint_id, State.DEAD, tenant=tenant, limit=limit, after=after)

    async def replay(self, message_id: str, *, tenant: str | None = None) -> None:
        """One dead letter waits again, with a whole new schedule and the same id. Raises NotFound; CallerError for one
        that is not dead, and while its endpoint is disabled.
        """
        message = await self._history.message(message_id)
        if message is None or tenant not in (None, message.tenant):
            raise NotFound(f"there is no message {message_id}")
        if not await self._replay(message.endpoint_id, message_id, tenant):
            raise CallerError(f"message {message_id} is {message.state}, not a dead letter")

    async def replay_since(self, endpoint_id: str, since: datetime, *, tenant: str | None = None) -> int:
        """All dead letters of an endpoint that were published at or after a moment. Returns how many."""
        return await self._replay(endpoint_id, since, tenant)

    async def _replay(self, endpoint_id: str, which: str | datetime, tenant: str | None) -> int:
        endpoint = await self.endpoints.get(endpoint_id, tenant=tenant)
        if endpoint.disabled_at is not None:
            raise CallerError(f"endpoint {endpoint_id} is disabled ({endpoint.disabled_reason}); enable it first")
        count = await self._history.replay(endpoint_id, self._clock(), which)
        self.delivery.wake()
        return count

    # --- housekeeping -------------------------------------------------------------------------------------------------

    async def tidy(self) -> int:
        """Forget what was settled longer ago than retention_days. Returns how many messages. `start` does so hourly."""
        return await self._history.delete_older_than(self._clock() - timedelta(days=self._settings.retention_days))

    async def _tidy_always(self) -> None:
        while True:
            try:
                await self.tidy()
            except UNAVAILABLE as problem:
                self._log.error("old webhooks cannot be deleted", error=brief(problem))
            await asyncio.sleep(TIDY_EVERY_S)


def _message(notice: Notice, endpoint: EndpointRow, now: datetime) -> MessageRow:
    message_id = notice.message_id(endpoint.id)
    return MessageRow(
        id=message_id,
        endpoint_id=endpoint.id,
        tenant=notice.tenant,
        lane=notice.call_id or message_id,
        kind=notice.kind,
        payload=notice.payload(),
        created_at=now,
        queued_at=now,
    )


def _ended(message: MessageRow, now: datetime) -> MessageRow:
    return replace(message, state=State.TESTED, attempts=1, settled_at=now)
