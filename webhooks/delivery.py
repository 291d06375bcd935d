"""Messages leave the queue: claimed, signed, sent, and written down, until nothing is due.

An endpoint whose receiver is away is held (`holding`): its messages wait, and one at a time asks whether it is back.
Owns the tasks that send and how many there are. What is claimed is ours for a lease that is longer than an attempt can
take; a process that dies lets its leases run out, and another one goes on: a message may then be sent twice, never
lost. Refuses to know HTTP (`Post`) and the database (the store's queue).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from sipserver import log
from sipserver.store.database import UNAVAILABLE, brief
from sipserver.store.webhook_health import WebhookHealth
from sipserver.store.webhook_queue import Claim, Head, WebhookQueue
from sipserver.store.webhook_rows import AttemptRow, EndpointRow, MessageRow, State
from sipserver.webhooks import holding, schedule, signing
from sipserver.webhooks.endpoints import Endpoints, signing_secrets
from sipserver.webhooks.sender import Answer
from sipserver.webhooks.settings import WebhookSettings

POLL_S = 1.0
"""How late a retry, or a message that another process published, may be."""
MOST_IN_A_ROW = 100
"""Messages of one lane before others of the tenant have their turn."""
LEASE_SPARE_S = 30.0
"""A lease outlives two attempts by so much: for a slow database, and clocks that differ."""


class Post(Protocol):
    """Sends one request. Raises nothing but CancelledError, and ends within the settings' timeout_s."""

    async def __call__(self, url: str, payload: bytes, headers: Mapping[str, str]) -> Answer: ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a message. due_at: of the next attempt while it is PENDING. gone: the receiver wants no more.
    counts: the attempt was one of those that the message has.
    """

    state: State
    error: str | None = None
    due_at: datetime | None = None
    gone: bool = False
    counts: bool = True


def judge(message: MessageRow, answer: Answer, now: datetime, chance: float, *, held: bool = False) -> Verdict:
    """Pure. 2xx acknowledges; everything else is tried again, but for 410. held: the endpoint was when the attempt
    began; that its receiver is still away is then nothing that the message has to answer for.
    """
    status = answer.status
    if status is not None and 200 <= status < 300:
        return Verdict(State.DELIVERED)
    if status == 410:
        return Verdict(State.DEAD, "the receiver answered 410 (gone)", gone=True)
    error = answer.error or f"the receiver answered {status}"
    if held and holding.is_away(status):
        return Verdict(State.PENDING, error, now, counts=False)
    asked_s = schedule.retry_after_s(status, answer.headers, now)
    waited_s = (now - message.queued_at).total_seconds()
    pause_s = schedule.pause_s(message.attempts + 1, waited_s, chance, asked_s)
    if pause_s is None:
        return Verdict(State.DEAD, error)
    return Verdict(State.PENDING, error, now + timedelta(seconds=pause_s))


async def attempt(post: Post, endpoint: EndpointRow, message: MessageRow, now: datetime) -> tuple[Answer, AttemptRow]:
    """Sign and send once, without a look at the queue."""
    headers = signing.headers(message.id, now, message.payload, signing_secrets(endpoint, now))
    answer = await post(endpoint.url, message.payload.encode(), headers)
    return answer, AttemptRow(
        message_id=message.id,
        endpoint_id=endpoint.id,
        tenant=endpoint.tenant,
        at=now,
        status=answer.status,
        latency_ms=answer.latency_ms,
        error=answer.error or None,
        answer=answer.body,
    )


class Delivery:
    """Loop thread. `start` and `stop` it, or `deliver_due` by hand. Counters: of attempts of this process, and of dead
    letters that they ended in; aged: those that were given up for their age alone. held: endpoints, of all processes, a
    second ago. chance: 0 to 1, for the pauses.
    """

    def __init__(
        self,
        queue: WebhookQueue,
        health: WebhookHealth,
        endpoints: Endpoints,
        post: Post,
        settings: WebhookSettings,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._queue, self._health, self._endpoints = queue, health, endpoints
        self._post, self._settings = post, settings
        self._clock, self._chance = clock, chance
        self._lease = timedelta(seconds=2 * settings.timeout_s + LEASE_SPARE_S)
        self._log = log.logger("webhooks")
        self._wake = asyncio.Event()
        self._stopping = self._failing = False
        self._more = False
        self._main: asyncio.Task[None] | None = None
        self._lanes: set[asyncio.Task[None]] = set()
        self._looked_at: datetime | None = None
        self.delivered = self.failed = self.dead = self.aged = self.held = 0

    def start(self) -> None:
        self._stopping = False
        self._main = asyncio.create_task(self._run(), name="webhooks")

    async def stop(self, within_s: float | None = None) -> None:
        """Attempts under way end, for at most within_s (as long as they may take, if None); what is cut off then is
        sent again by whoever claims it next. Idempotent.
        """
        self._stopping = True
        self._wake.set()
        within_s = self._settings.timeout_s + 1 if within_s is None else within_s
        if self._main is not None:  # what it has just claimed is given back by the tasks that it still starts
            await _end([self._main], within_s)
            self._main = None
        await _end(self._lanes, within_s)

    def wake(self) -> None:
        """Something may be due now."""
        self._wake.set()

    async def deliver_due(self) -> int:
        """Everything that is due now, and what is behind it. Returns how many attempts that were. Raises what the
        database raises.
        """
        before = self.delivered + self.failed
        while claims := await self._claim():
            await asyncio.gather(*(self._lane(claim) for claim in claims))
        return self.delivered + self.failed - before

    async def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            claims: Sequence[Claim] = ()
            try:
                claims = await self._claim()
                self._failing = False
            except UNAVAILABLE as problem:
                if not self._failing:
                    self._failing = True
                    self._log.error("the queue of webhooks cannot be read; messages wait", error=brief(problem))
            for claim in claims:
                task = asyncio.create_task(self._lane(claim), name=f"webhooks {claim.lane}")
                self._lanes.add(task)
                task.add_done_callback(self._ended)
            try:
                async with asyncio.timeout(POLL_S):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._lanes.discard(task)
        if self._more:  # there is room for one that had to wait
            self._wake.set()
        if not task.cancelled() and (problem := task.exception()):
            self._log.error("a webhook's task failed", exc_info=problem)

    async def _claim(self) -> Sequence[Claim]:
        room = self._settings.connections - len(self._lanes)
        if room <= 0 or self._stopping:
            self._more = True
            return ()
        now = self._clock()
        probes = await self._probes(now, room)
        if len(probes) == room:
            return probes
        most, per_tenant = room - len(probes), self._settings.per_tenant
        claims, self._more = await self._queue.claim(now, now + self._lease, most=most, per_tenant=per_tenant)
        return probes + claims

    async def _probes(self, now: datetime, room: int) -> list[Claim]:
        """Looks once a POLL_S. Whoever has a message first and its turn then asks; others give the message back."""
        if self._looked_at is not None and 0 <= (now - self._looked_at).total_seconds() < POLL_S:
            return []
        self._looked_at = now
        held = await self._health.held()
        self.held = len(held)
        claims: list[Claim] = []
        for endpoint in held:
            if endpoint.held_until is None or endpoint.held_until > now or len(claims) == room:
                break
            claim = await self._queue.claim_probe(endpoint, now, now + self._lease)
            if claim is None or claim.head is None:
                continue
            if await self._health.take_turn(endpoint, now + self._lease):
                claims.append(claim)
            else:
                await self._queue.release(claim, now)
        return claims

    async def _lane(self, claim: Claim) -> None:
        """The messages of a lane, one after another, until one fails or none is left."""
        try:
            head, sent = claim.head, 0
            while head is not None and sent < MOST_IN_A_ROW and not self._stopping and _may(claim, head, sent):
                head = await self._next(claim, head)
                sent += 1
            if head is not None:
                await self._queue.release(claim, self._clock())
                self._wake.set()
        except asyncio.CancelledError:
            await self._queue.release(claim, self._clock())
            raise
        except UNAVAILABLE as problem:
            self._log.error(
                "what came of a webhook cannot be written; it is sent again",
                endpoint=claim.endpoint_id,
                error=brief(problem),
            )

    async def _next(self, claim: Claim, head: Head) -> Head | None:
        message, endpoint = head.message, head.endpoint
        if endpoint.disabled_at is not None:  # what was published by one who did not know it yet
            await self._queue.park(endpoint.id, self._clock(), f"disabled: {endpoint.disabled_reason}"[:256])
            return await self._queue.head(claim, self._clock() + self._lease)
        answer, row = await attempt(self._post, endpoint, message, self._clock())
        now, held = self._clock(), endpoint.held_until is not None
        verdict = judge(message, answer, now, self._chance(), held=held)
        self._count(verdict, endpoint, message)
        await self._note(endpoint, answer, now)
        following = await self._queue.settle(
            claim,
            row,
            verdict.state,
            until=now + self._lease,
            due_at=verdict.due_at,
            error=verdict.error,
            counts=verdict.counts,
        )
        if not verdict.counts:
            await self._give_up_old(endpoint, now, verdict)
        if not verdict.gone:
            return following
        await self._endpoints.disable(endpoint.id, "the receiver answered 410 (gone)")
        return await self._queue.head(claim, now + self._lease)

    async def _note(self, endpoint: EndpointRow, answer: Answer, now: datetime) -> None:
        """What the attempt says about the receiver."""
        about = {"tenant": endpoint.tenant, "endpoint": endpoint.id}
        held = endpoint.held_until is not None
        if not holding.is_away(answer.status):
            if (held or endpoint.failures) and await self._health.answered(endpoint.id):
                await self._queue.hurry(endpoint.id, now)
                self._log.info("the receiver of a webhook endpoint is back", since=str(endpoint.held_since), **about)
            return
        asked_s, chance = schedule.retry_after_s(answer.status, answer.headers, now), self._chance()

        def hold(failures: int) -> datetime | None:
            pause_s = holding.pause_s(failures, chance, asked_s)
            return now + timedelta(seconds=pause_s) if pause_s is not None else None

        if await self._health.failed(endpoint.id, now, hold, probe=held):
            error = answer.error or f"the receiver answered {answer.status}"
            self._log.warning("the receiver of a webhook endpoint is away; its messages wait", error=error, **about)

    async def _give_up_old(self, endpoint: EndpointRow, now: datetime, verdict: Verdict) -> None:
        """While an endpoint is held, its messages use up no attempts: they are given up by their age."""
        before = now - timedelta(seconds=schedule.TOTAL_S)
        count = await self._queue.park(endpoint.id, now, verdict.error or "", before=before)
        if count:
            self.aged += count
            self._log.warning(
                "webhooks are given up; they can be replayed",
                tenant=endpoint.tenant,
                endpoint=endpoint.id,
                messages=count,
                error=verdict.error,
            )

    def _count(self, verdict: Verdict, endpoint: EndpointRow, message: MessageRow) -> None:
        if verdict.state is State.DELIVERED:
            self.delivered += 1
            return
        self.failed += 1
        if verdict.state is State.DEAD:
            self.dead += 1
            self._log.warning(
                "a webhook is given up; it can be replayed",
                tenant=endpoint.tenant,
                endpoint=endpoint.id,
                message=message.id,
                error=verdict.error,
            )


def _may(claim: Claim, head: Head, sent: int) -> bool:
    """To an endpoint that is held goes one message at a time."""
    return head.endpoint.held_until is None or (claim.probe and sent == 0)


async def _end(tasks: Iterable[asyncio.Task[None]], within_s: float) -> None:
    """Wait for them, and cancel those that take longer."""
    waited = set(tasks)
    if not waited:
        return
    _, late = await asyncio.wait(waited, timeout=within_s)
    for task in late:
        task.cancel()
    if late:
        await asyncio.wait(late)
