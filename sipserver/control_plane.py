"""The control plane: what programs ask from outside, put together of the rooms that answer; and what is told to them.

Owns the order in which its parts start and end, and its own connections to the database. Refuses to know calls: they
are asked (`asking`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from aiohttp import web

from sipserver import allowing
from sipserver.api.live.socket import EventSocket
from sipserver.api.plan_checks import Engines, PlanChecks
from sipserver.api.plans import Plans
from sipserver.api.rest import app
from sipserver.api.rest.access import Access
from sipserver.api.rest.calls import CallOperations
from sipserver.api.rest.cookies import Cookies
from sipserver.api.rest.dialplans import DialplanOperations
from sipserver.api.rest.health import Looks
from sipserver.api.rest.idempotency import Idempotency
from sipserver.api.rest.keys import KeyOperations
from sipserver.api.rest.login import Entrance, LoginOperations
from sipserver.api.rest.operations import Operation
from sipserver.api.rest.privacy import PrivacyOperations
from sipserver.api.rest.provider import ProviderOperations
from sipserver.api.rest.tenant_config import ConfigOperations
from sipserver.api.rest.usage import UsageOperations
from sipserver.api.rest.users import UserOperations
from sipserver.api.rest.webhooks import WebhookOperations
from sipserver.api.sounds.fetching import Fetching
from sipserver.api.sounds.here import Sounds
from sipserver.asking import Asking
from sipserver.bus.contract import Bus, Draw, Json, Live
from sipserver.calls import keyring, sound_files
from sipserver.calls.keyring import Keyring
from sipserver.dialplan.bounds import Allowed
from sipserver.errors import TooMany
from sipserver.events import LimitExceeded, LimitNear
from sipserver.gate.gate import Gate
from sipserver.journal import Entry
from sipserver.log import logger
from sipserver.settings import Settings
from sipserver.store.audit import AuditRows
from sipserver.store.database import UNAVAILABLE, Database, brief
from sipserver.store.dialplans import VersionRows
from sipserver.store.doomed import DoomedFiles
from sipserver.store.feed_rows import FeedRows
from sipserver.store.idempotency import IdempotencyRows
from sipserver.store.keys import KeyRows
from sipserver.store.persons import PersonRows
from sipserver.store.reader import Reader
from sipserver.store.retention import RetentionRows
from sipserver.store.running import Running
from sipserver.store.sessions import SessionRows
from sipserver.store.tenant_events import TenantEvents
from sipserver.store.usage_meters import UsageMeters
from sipserver.store.usage_rows import UsageRows
from sipserver.store.users import UserRows
from sipserver.tenants import audit_secret, metering
from sipserver.tenants.allowances import Told
from sipserver.tenants.audit_log import AuditLog
from sipserver.tenants.audit_trail import AuditTrail
from sipserver.tenants.bills import Bills
from sipserver.tenants.key_book import KeyBook
from sipserver.tenants.metering import MeterEvent, Metering
from sipserver.tenants.nearness import CallsWatch, Nearness
from sipserver.tenants.oidc import Providers
from sipserver.tenants.passwords import Passwords
from sipserver.tenants.prices import Rating
from sipserver.tenants.principal import Principal
from sipserver.tenants.privacy import Privacy
from sipserver.tenants.provider_login import ProviderLogin
from sipserver.tenants.retention import Retention
from sipserver.tenants.session_book import SessionBook
from sipserver.tenants.shredder import Shredder
from sipserver.tenants.spending import Spending
from sipserver.tenants.user_book import UserBook
from sipserver.webhooks import notices
from sipserver.webhooks.notices import Notice
from sipserver.webhooks.outgoing import Outgoing
from sipserver.webhooks.wanted import Wanted

CONNECTIONS = 6
"""To a database server: deliveries may have four at a time."""
FEED_CONNECTIONS = 4
"""For those who follow events, so that whoever catches up keeps nobody else waiting."""
STOP_S = 5.0
LOOK_S = 2.0
"""How long the database may take to say that it is there."""


class Telling:
    """Webhooks out of one process, which publishes what it keeps, and delivers; what the audit log is told of calls;
    and what is deleted because it is too old. Loop thread. node: this machine, as calls name it. The tables are made by
    whoever writes records. wanted: the events that somebody waits for.
    """

    def __init__(self, loaded: Settings, bus: Bus, node: str) -> None:
        self._database = Database(loaded.store, connections=CONNECTIONS)
        self.outgoing = Outgoing(self._database, loaded.webhooks, bus=bus)
        self._bus, self.wanted = bus, Wanted()
        self._beside_calls = TenantEvents(self._database, node, bus.live.tell)
        nearness = Nearness(bus.meters, Draw, self._near)
        rows, running = UsageRows(self._database), Running(self._database)
        self._spending = Spending(rows, running, Rating(loaded.prices), loaded.tenants, bus.meters, nearness)
        self._calls = CallsWatch(loaded.tenants, bus.limits.used, nearness)
        self._metering = Metering(UsageMeters(self._database), loaded.tenants, self._meter)
        self._beside: list[asyncio.Task[None]] = []
        self._trail = AuditTrail(AuditRows(self._database), loaded.audit)
        self.retention = Retention(
            RetentionRows(self._database),
            DoomedFiles(self._database),
            Shredder(node, loaded.calls.recordings),
            loaded.retention,
            self._trail.log,
        )

    async def tell(self, entries: Sequence[Entry]) -> None:
        """As `store.keeper.Tell`."""
        if told := notices.of_entries(entries):
            await self.outgoing.publish(told)
        await self._trail.tell(entries)

    async def note(self, who: Principal, deed: str, subject: str, source: str) -> None:
        """Of those who listen with a token, whom no control plane knows."""
        log = await self._trail.log()
        await log.append(who.tenant, actor=who.actor, action=deed, subject=subject, source=source)

    def attempts(self) -> Mapping[str, float]:
        """To deliver webhooks, by outcome, for the metrics."""
        delivery = self.outgoing.delivery
        again = delivery.failed - delivery.dead
        return {"delivered": delivery.delivered, "failed": again, "dead": delivery.dead + delivery.aged}

    def held(self) -> int:
        """Webhooks' endpoints whose receiver is away, for the metrics."""
        return self.outgoing.delivery.held

    def start(self) -> None:
        """Deliver from now on, also what an earlier process left, and delete what is too old."""
        self.outgoing.start()
        self.retention.start()
        for work, name in (
            (self._spending.run(), "what tenants spend and keep"),
            (self._calls.run(), "calls at a time"),
            (self._metering.run(), "meter events"),
            (self._listen(), "wanted events"),
        ):
            self._beside.append(asyncio.create_task(work, name=name))

    async def _near(self, tenant: str, told: Told) -> None:
        event = LimitNear(told.limit, told.most, told.used)
        at = await self._beside_calls.add(tenant, event)
        await self.outgoing.publish(
            [Notice(tenant, event.kind, at, event.fields(), key=f"near/{told.limit}/{at.isoformat()}")]
        )

    async def _listen(self) -> None:
        """An endpoint that is made elsewhere is heeded here at once."""
        serving = await self._bus.commands.serve("all", self._heed)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await serving.close()

    async def _heed(self, verb: str, arguments: Json) -> Json:
        self.outgoing.endpoints.forget()
        return await self.wanted.heed(verb, arguments)

    async def _meter(self, events: Sequence[MeterEvent]) -> None:
        await self.outgoing.publish(
            [Notice(each.tenant, metering.KIND, each.at, each.fields, key=each.key) for each in events]
        )

    async def close(self) -> None:
        """Attempts under way get STOP_S; what waits is delivered after the next start."""
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        await self.retention.close()
        await self.outgoing.stop(STOP_S)
        await self._database.close()


class ControlPlane:
    """Loop thread. `app`, what is `offered` there, and the `sounds` of this machine, at once; `close` at the end. The
    tables are made by whoever writes records. elsewhere: fetches sound from other machines; None: there are none.
    Raises SettingsError when the secret of the audit log or the keys of recordings cannot be used.
    """

    def __init__(
        self,
        loaded: Settings,
        asking: Asking,
        bus: Bus,
        *,
        takes_calls: Callable[[], bool] = lambda: True,
        bus_up: Callable[[], bool] = lambda: True,
        elsewhere: Fetching | None = None,
    ) -> None:
        self._database = Database(loaded.store, connections=CONNECTIONS)
        ring = keyring.load(loaded.calls.encryption)
        self._keys = keys = KeyBook(KeyRows(self._database))
        self._feeds = Database(loaded.store, connections=FEED_CONNECTIONS)
        self._events: list[EventSocket] = []
        self.sounds = Sounds(loaded.calls.recordings, ring)
        calls = CallOperations(Reader(self._database), asking, self.sounds, elsewhere)
        self._outgoing = Outgoing(self._database, loaded.webhooks, bus=bus)
        self._audit = AuditLog(AuditRows(self._database), audit_secret.load(loaded.audit, make=True))
        self._log = logger("api")
        users = UserBook(UserRows(self._database), Passwords())
        sessions = SessionBook(SessionRows(self._database), loaded.login)
        cookies = Cookies(loaded.gate)
        entrance = Entrance(sessions, cookies, self._note, loaded.login)
        people = LoginOperations(users, sessions, entrance, loaded.login)
        self._providers = Providers(loaded.login.oidc)
        comers = ProviderOperations(self._providers, ProviderLogin(users), entrance, loaded.login)
        self._allowances = allowing.of(loaded, bus)
        self._beside_calls = TenantEvents(self._database, bus.node, bus.live.tell)
        self._access = access = Access(
            keys.recognise,
            per_s=loaded.http.api_per_s,
            welcome=sessions.recognise,
            cookies=cookies,
            of_tenant=self._one_more,
        )
        bills = Bills(UsageRows(self._database), Rating(loaded.prices))
        self.offered: Sequence[Operation] = [
            *calls.operations(),
            *WebhookOperations(self._outgoing).operations(),
            *people.operations(),
            *comers.operations(),
            *UserOperations(users, self._audit).operations(),
            *self._config(loaded, asking),
            *KeyOperations(keys).operations(),
            *UsageOperations(bills, calls.row_of).operations(),
            *PrivacyOperations(self._privacy(loaded, ring, elsewhere)).operations(),
        ]
        looks = Looks(takes_calls, lambda: self._database.answers(LOOK_S), bus_up)
        self._once = Idempotency(IdempotencyRows(self._database))
        self.app: web.Application = app.application(access, self._note, self._once, self.offered, looks.routes())
        self.app.cleanup_ctx.append(self._following)

    async def check(self) -> None:
        """To be waited for before programs may change anything. Raises SettingsError where no log can be continued with
        the secret. Where the database does not answer nothing is known, and a change that cannot be noted is not made.
        """
        try:
            await self._audit.check()
        except UNAVAILABLE as problem:
            self._log.warning("the secret of the audit log was not tried: no database", error=brief(problem))

    def _privacy(self, loaded: Settings, ring: Keyring, elsewhere: Fetching | None) -> Privacy:
        rows, reader, opens = PersonRows(self._database), Reader(self._database), sound_files.whatever_is_there(ring)
        return Privacy(rows, reader, self._audit, loaded.calls.recordings, opens, elsewhere)

    def _config(self, loaded: Settings, asking: Asking) -> list[Operation]:
        """What a tenant configures."""
        allowed = {name: Allowed(each.numbers, each.targets, each.hosts) for name, each in loaded.tenants.items()}
        engines = Engines(loaded.speech.stt, loaded.speech.tts, loaded.llm)
        checks = PlanChecks(loaded.dialplans, allowed, engines, loaded.most_agents)
        self._plans = Plans(VersionRows(self._database), loaded.dialplans, checks, self._note_by_hand)
        looking = ConfigOperations(self._plans, asking, loaded.tenants, Running(self._database), self._allowances)
        return [*DialplanOperations(self._plans).operations(), *looking.operations()]

    async def _following(self, _app: web.Application) -> AsyncIterator[None]:
        """The machine's dialplans follow their versions for as long as HTTP is served, and old keys are swept."""
        tasks = [
            asyncio.create_task(self._plans.follow(), name="follow dialplans"),
            asyncio.create_task(self._once.sweep(), name="sweep Idempotency-Keys"),
        ]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _note_by_hand(self, tenant: str, action: str, name: str) -> None:
        await self._audit.append(tenant, actor="operator", action=action, subject=f"dialplan:{name}")

    def events(self, gate: Gate, live: Live) -> EventSocket:
        """Events for programs by WebSocket. At most once."""
        source = FeedRows(self._feeds)
        made = EventSocket(gate, self._access, self._keys.recognise, source, live, self._note)
        self._events.append(made)
        return made

    async def _note(
        self, who: Principal, deed: str, subject: str, source: str, detail: Mapping[str, Any] | None = None
    ) -> int:
        entry = await self._audit.append(
            who.tenant, actor=who.actor, action=deed, subject=subject, source=source, detail=detail
        )
        return entry.number

    async def _one_more(self, tenant: str) -> None:
        """Raises TooMany when the tenant may not ask now; those who want to hear of it are told."""
        allowed = await self._allowances.request(tenant)
        for told in allowed.told:
            try:
                await self._tell(tenant, LimitExceeded(told.limit, told.most, told.used))
            except UNAVAILABLE as problem:
                self._log.warning("nobody is told of a limit now", tenant=tenant, error=brief(problem))
        if allowed.reached is not None:
            raise TooMany(allowed.reached.text, retry_after_s=allowed.reached.retry_after_s)

    async def _tell(self, tenant: str, event: LimitExceeded) -> None:
        at = await self._beside_calls.add(tenant, event)
        key = f"{event.limit}/{at.isoformat()}"
        await self._outgoing.publish([Notice(tenant, event.kind, at, event.fields(), key=key)])

    async def close(self) -> None:
        for each in self._events:
            await each.close()
        await self._outgoing.stop()
        await self._providers.close()
        await self._feeds.close()
        await self._database.close()
