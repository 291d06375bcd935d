"""What takes calls in a process: one cell, its calls, the dialplans and the engines behind them.

The single server has one beside its database and its HTTP port; in a fleet every cell process is one. Owns the order in
which these parts start, stop and drain, and the change to a new book. Refuses to know where records go, who watches the
process and what a signal means.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import statistics
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any

from sipserver.agent.conversation import Conversation
from sipserver.api.health import Check
from sipserver.api.metrics import Probes
from sipserver.audio import hold_music
from sipserver.calls import keyring
from sipserver.calls.conference import Claims, Rooms
from sipserver.calls.limits import Allowances, Limits
from sipserver.calls.record import RecordSink
from sipserver.calls.recording import Recorder
from sipserver.calls.registry import Registry
from sipserver.calls.services import Listener, Services
from sipserver.calls.settings import Redact
from sipserver.carriers import Carriers
from sipserver.dialplan.book import Book
from sipserver.dialplan.watch import Snapshot, Watcher
from sipserver.engines import EngineRoom
from sipserver.errors import ConfigError, SipServerError
from sipserver.log import logger
from sipserver.outbound import TrunkOutbound
from sipserver.settings import Settings
from sipserver.sip.cell import Cell
from sipserver.sip.leg import SipLeg
from sipserver.streams.bots.client import BotClient
from sipserver.tenancy import Tenancy
from sipserver.trunks.state import Registered
from sipserver.webhooks.decider import Decider

SIP_HANGS_S = 3.0
"""The sip thread turns at least once a second; a standstill of this length means that it hangs."""


class Exchange:
    """Loop thread. `running` starts and stops it; `drain` before the end lets calls finish.

    records: where calls tell what happens. limits: who counts places that tenants and trunks share;
    None: nobody does; allowances: the same for what tenants use up.
    snapshot: dialplans that were read before, e.g. before a fork; without one the folder is read and watched.
    capacity_hint: calls that PJSIP holds, if that is known; 0: find out. claims: who says which process has a
    conference, where there are several; None: this one has all. Raises SettingsError for keys of recordings that
    cannot be used.
    """

    def __init__(
        self,
        loaded: Settings,
        engines: EngineRoom,
        records: RecordSink,
        *,
        listeners: tuple[Listener, ...] = (),
        limits: Limits | None = None,
        allowances: Allowances | None = None,
        snapshot: Snapshot | None = None,
        capacity_hint: int = 0,
        claims: Claims | None = None,
    ) -> None:
        self._settings = loaded
        self._log = logger("exchange")
        self._book = Book()
        self._tasks: set[asyncio.Task[None]] = set()
        self._hurry = asyncio.Event()
        self._serving = False
        self._trunk_calls = {trunk.name: trunk.limits.calls for trunk in loaded.trunks}
        self.engines = engines
        encryption = loaded.calls.encryption
        self.recorder = Recorder(loaded.calls.recordings, ring=keyring.load(encryption), seal=encryption.enabled)
        self.watcher = Watcher(
            loaded.dialplans,
            on_change=self._on_book,
            on_problem=self._on_problem,
            snapshot=snapshot,
            most_agents=loaded.most_agents,
        )
        self.cell = Cell(loaded.sip, self._on_leg, capacity_hint=capacity_hint, trunks=loaded.trunks)
        self.outbound = TrunkOutbound(
            self.cell,
            loaded.trunks,
            loaded.sip.user,
            own_address=self._own_address,
            limits=limits,
            down=lambda: self.cell.trunks.down,
        )
        self.decider = Decider(loaded.webhooks)
        tenancy = Tenancy(loaded.trunks, {name: each.numbers for name, each in loaded.tenants.items()})
        self.carriers = Carriers(self.outbound)
        self.registry = Registry(
            Services(
                settings=loaded.calls,
                engines=engines.engines,
                speech_cache=engines.cache,
                converse=Conversation,
                book=lambda: self._book,
                recorder=self.recorder,
                records=records,
                listeners=listeners,
                limits=limits,
                limits_of=self._limits_of,
                tenants_of=tenancy.of,
                allowances=allowances,
                redact_of=self._redact_of,
                load=self._load,
                outbound=self.carriers,
                bots=BotClient(),
                decides=self.decider,
                rooms=Rooms(claims),
            )
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read the dialplans, load their engines, take calls. Stops in reverse; a start that fails stops what had
        begun. Raises ConfigError, CarrierError (a port is taken).
        """
        async with contextlib.AsyncExitStack() as stack:
            book = await self.watcher.start()
            stack.push_async_callback(self.watcher.stop)
            for unknown in self.engines.unknown(book):
                raise unknown
            stack.push_async_callback(self.engines.close)
            await self.engines.load(book)
            self._book = book
            await asyncio.to_thread(hold_music.gentle)
            self.recorder.open()
            stack.push_async_callback(self.recorder.close)
            stack.push_async_callback(self.registry.services.scribe.close)
            stack.push_async_callback(self.outbound.close)
            stack.push_async_callback(self.decider.close)
            await self.cell.start()
            stack.push_async_callback(self.cell.stop)
            self._serving = True
            stack.push_async_callback(self._end_tasks)
            self.start_task(self.engines.warm(self._book), "warm")
            gc.collect()
            gc.freeze()
            yield

    async def drain(self, deadline_s: float) -> None:
        """New calls get 503; running ones go on until the deadline or until somebody is in a hurry. Then none lives."""
        self._serving = False
        self.cell.drain()
        self._log.info("draining", calls=len(self.registry.calls), deadline_s=deadline_s)
        draining = asyncio.create_task(self.registry.drain(deadline_s), name="drain")
        hurry = asyncio.create_task(self._hurry.wait(), name="hurry")
        await asyncio.wait({draining, hurry}, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        ended = 0 if draining.done() else await self.registry.drain(0)
        ended += await draining
        self._log.info("drained", ended=ended)

    def hurry(self) -> None:
        """End the running calls now instead of waiting for them."""
        self._hurry.set()

    def start_task(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run something beside the calls until it ends or the exchange stops; what it raises is logged."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    @property
    def serving(self) -> bool:
        """Whether new calls are taken."""
        return self._serving

    # --- what others may know -----------------------------------------------------------------------------------------

    def readiness(self) -> Sequence[Check]:
        """Everything that an answered and spoken-to call needs."""
        if not self._serving:
            return (Check("server", False, "starting" if not self.registry.draining else "draining"),)
        return (
            Check("sip", self._sip_moves(), "the sip thread does not move"),
            Check("dialplans", bool(self._book.plans), f"no dialplan in {self._settings.dialplans}"),
            *self.engines.checks(self._book),
        )

    def probes(
        self, queues: Callable[[], Mapping[str, float]], record_faults: Callable[[], Mapping[str, float]]
    ) -> Probes:
        """What the metrics read at scrape time. queues and record_faults: of the parts that the exchange does not
        know."""
        return Probes(
            calls=self.calls_by_state,
            capacity=lambda: {"inbound": self.cell.inbound_limit, "total": self.cell.capacity} if self._serving else {},
            queues=lambda: {
                **self.engines.depths(),
                "recorder": self.recorder.depth,
                "scribe": self.registry.services.scribe.depth,
                **queues(),
            },
            refused=lambda: self.cell.refused,
            media_clock_late_s=self._lateness_s,
            tick_age_s=self.tick_age_s,
            callers_waiting=self.registry.services.queues.waiting,
            longest_wait_s=self.registry.services.queues.longest_wait_s,
            record_faults=record_faults,
            trunk_up=lambda: {name: state.up for name, state in self.cell.trunks.states.items()},
            trunk_registered=self._registered,
        )

    def trunk_states(self) -> Sequence[Mapping[str, Any]]:
        """One mapping a trunk: what `TrunkState.plain` says, and its calls now."""
        calls = self.cell.calls_by_trunk
        return [{**state.plain(), "calls": calls.get(name, 0)} for name, state in self.cell.trunks.states.items()]

    def calls_by_state(self) -> dict[str, int]:
        return {str(state): count for state, count in self.registry.counts().items()}

    def tick_age_s(self) -> dict[str, float]:
        """Since the last turn of the sip thread and, while calls have media, the last tick of the media clock."""
        now_s = time.monotonic()
        ticks = {"sip": self.cell.last_sip_tick_s, "media": self.cell.last_media_tick_s}
        return {part: now_s - ticked_s for part, ticked_s in ticks.items() if ticked_s is not None}

    # --- inside -------------------------------------------------------------------------------------------------------

    def _registered(self) -> Mapping[str, float]:
        states = self.cell.trunks.states.items()
        needed = [(name, state.registration) for name, state in states if state.registration != Registered.NOT_NEEDED]
        return {name: registration is Registered.REGISTERED for name, registration in needed}

    def _limits_of(self, tenant: str, trunk: str) -> Mapping[str, int]:
        """The scopes in which a call needs a place, with their limits; 0 in the settings means none."""
        wanted: dict[str, int] = {}
        if tenant in self._settings.tenants:
            wanted[f"tenant/{tenant}"] = self._settings.tenants[tenant].calls
        if trunk in self._trunk_calls:
            wanted[f"trunk/{trunk}"] = self._trunk_calls[trunk]
        return {scope: limit for scope, limit in wanted.items() if limit}

    def _redact_of(self, tenant: str) -> Redact:
        limits = self._settings.tenants.get(tenant)
        return Redact.CARDS if limits is None else Redact(limits.redact)

    def _load(self) -> float:
        """Percent of the inbound calls that the cell takes at a time, without the one that is just arriving."""
        return min(100.0, 100 * len(self.registry.calls) / self.cell.inbound_limit)

    def _own_address(self) -> str:
        """host:port of From in calls that go by no trunk."""
        sip = self._settings.sip
        return f"{sip.public_address or sip.host}:{self.cell.sip_port}"

    def _on_leg(self, leg: SipLeg) -> None:
        self.registry.accept(leg)

    def _on_book(self, book: Book) -> None:
        self.start_task(self._adopt(book), "adopt")

    async def _adopt(self, book: Book) -> None:
        """Take a new book; a tenant whose engines are unknown or cannot be loaded keeps the plan it had."""
        unknown = self.engines.unknown(book)
        for problem in unknown:
            self._on_problem(problem)
        refused = {problem.file for problem in unknown}
        plans = [self._book.plan(plan.tenant) if str(plan.file) in refused else plan for plan in book.plans]
        adopted = Book(tuple(plan for plan in plans if plan is not None))
        try:
            await self.engines.load(adopted)
        except SipServerError as problem:
            self._log.error("dialplans not taken over: an engine cannot be loaded", error=str(problem))
            return
        self._book = adopted
        self._log.info("dialplans taken over", tenants=len(adopted.plans))
        await self.engines.warm(adopted)

    def _on_problem(self, problem: ConfigError) -> None:
        self._log.error("dialplan refused, the old one stays", file=problem.file, line=problem.line, error=str(problem))

    def _sip_moves(self) -> bool:
        ticked_s = self.cell.last_sip_tick_s
        return ticked_s is not None and time.monotonic() - ticked_s < SIP_HANGS_S

    def _lateness_s(self) -> Mapping[str, float]:
        late_ms = self.cell.take_lateness_ms()
        if not late_ms:
            return {}
        return {"median": statistics.median(late_ms) / 1000, "max": max(late_ms) / 1000}

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            self._log.error("a task of the exchange broke", task=task.get_name(), exc_info=problem)

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
