"""The supervisor: starts a machine's part of the fleet in order, keeps it, ends it in reverse.

Owns the order, the state of the machine as a whole, and what an operator can ask for. Refuses to touch calls, audio,
records: a supervisor that dies takes nothing with it, as its children go on until the next one has replaced them.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import fcntl
import os
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Mapping
from pathlib import Path
from typing import Any

from sipserver import systemd_notify
from sipserver.bus.contract import Bus
from sipserver.dialplan.book import Book
from sipserver.dialplan.watch import Watcher
from sipserver.edge.cells import CellAddress
from sipserver.errors import ConfigError, InternalError, SettingsError, SipServerError
from sipserver.fleet import plan
from sipserver.fleet.admin import AdminServer
from sipserver.fleet.alarms import Alarms
from sipserver.fleet.burial import Burials
from sipserver.fleet.child import Child
from sipserver.fleet.child import State as ChildState
from sipserver.fleet.crew import CELL, GATEWAY, Crew
from sipserver.fleet.front import Edge, Front
from sipserver.fleet.ledger import Ledger
from sipserver.fleet.nursery import Nursery
from sipserver.fleet.process import resolve
from sipserver.fleet.programs import Keeper, Program
from sipserver.fleet.roster import Node
from sipserver.fleet.status import ChildStatus, FleetFacts, FleetStatus
from sipserver.fleet.troubles import Troubles
from sipserver.log import logger
from sipserver.settings import Settings

KINDS = "sipserver.fleet.process:KINDS"
BURIAL_S = 5.0
MOST_PROBLEMS = 20
"""Mistakes of dialplans that an operator who reloads is told of."""
RENEWED = ("speech", "writer", "gateway", CELL)
"""In this order: new cells find new speech workers."""


class State(enum.StrEnum):
    STARTING = "starting"
    SERVING = "serving"
    HELD = "held"
    DRAINING = "draining"


class Supervisor:
    """`async with running()`, inside it `restart`, `reload`, `hold`, `release`; `hurry` while it ends. Loop thread of a
    process that is a subreaper (`process.become_subreaper`).

    edge: None where this machine only has cells. programs: other servers to keep, by name. kinds: `module:name` of the
    table of kinds. cores: one gateway each, unless the settings say how many.
    """

    def __init__(
        self,
        loaded: Settings,
        settings_file: Path,
        bus: Bus,
        *,
        edge: Edge | None = None,
        programs: Mapping[str, Program] | None = None,
        kinds: str = KINDS,
        cores: int | None = None,
    ) -> None:
        fleet = loaded.fleet
        self._settings, self._bus, self._edge = loaded, bus, edge
        self._cores = cores or os.cpu_count() or 1
        self._log = logger("fleet")
        self._tasks: set[asyncio.Task[Any]] = set()
        self._plan: plan.Plan | None = None
        self._problems: deque[str] = deque(maxlen=MOST_PROBLEMS)
        self._restarting = asyncio.Lock()
        self._books_changed = False
        self.state = State.STARTING
        self.alarms = Alarms()
        self.nursery = Nursery(settings_file, kinds, fleet, self.alarms)
        self.crew = Crew(
            loaded, settings_file, bus.node, resolve(kinds), self.nursery.spawn, self, self.alarms, self._before_drain
        )
        self._ledger = Ledger(fleet.runtime / "lives")
        self.burials = Burials(bus, self._ledger)
        self.front = Front(bus, edge, self._own, self.alarms)
        served = {"edge": edge, **(programs or {})} if edge is not None else dict(programs or {})
        if "edge" in served:
            served["edge"] = served.pop("edge")  # the last: when it takes calls, what it needs is there
        self._keepers = [
            Keeper(name, program, fleet, self.alarms, self.front.edge_started) for name, program in served.items()
        ]
        self._troubles = Troubles(self.crew, bus, self.alarms, (loaded.bus.spool, loaded.calls.recordings))
        self._watcher = Watcher(
            loaded.dialplans,
            on_change=self._on_book,
            on_problem=self._on_problem,
            most_agents=loaded.most_agents,
        )
        self._admin = AdminServer(
            fleet.runtime,
            {
                "status": self._status,
                "facts": self._facts,
                "edge": self._edge_stats,
                "drain": self._hold,
                "undrain": self._release,
                "restart": self._ask_restart,
                "reload": self._ask_reload,
            },
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start in order; drain and stop in reverse when the block ends. A start that fails stops what had begun.

        Raises ConfigError for settings, ports and dialplans, InternalError for kinds that cannot be imported or a PJSIP
        that does not answer.
        """
        async with contextlib.AsyncExitStack() as stack:
            inherited = await self._open_runtime(stack)
            await self._bus.open()
            stack.push_async_callback(self._bus.close)
            stack.push_async_callback(self._end_tasks)
            await self._watcher.start()
            stack.push_async_callback(self._watcher.stop)
            await self.nursery.start()
            stack.push_async_callback(self.nursery.close)
            self._plan = await self._make_plan()
            self.crew.adopt_plan(self._plan)
            for life in inherited:
                self.burials.inherit(life)
            stack.push_async_callback(self.burials.finish, BURIAL_S)
            stack.push_async_callback(self.crew.close)
            self._start(self._heartbeat(), "heartbeat")
            self._start(self._troubles.watch_disk(), "disk")
            stack.push_async_callback(self._stop_helpers)
            await self._admin.start()
            stack.push_async_callback(self._admin.stop)
            await self._fill_helpers(self._plan)
            stack.push_async_callback(self._stop_keepers)
            for keeper in self._keepers:
                await keeper.start()
            if not await self.crew.fill(CELL, self._plan.cells):
                self._log.error("not all cells are ready; those that are take calls")
            await self.front.start()
            stack.push_async_callback(self.front.stop)
            await self.front.flush()
            await self._tell_edge(False)  # an earlier supervisor may have died while it drained
            self.state = State.SERVING
            self._start(self._watchdog(), "watchdog")
            self._log.info("serving", cells=len(self.crew.ready(CELL)), calls=self._plan.calls)
            systemd_notify.ready(self._status_line())
            try:
                yield
            finally:
                await self._drain()

    def hurry(self) -> None:
        """End running calls now (second SIGTERM)."""
        self.crew.hurry()

    async def restart(self) -> bool:
        """A warm parent with today's code, settings and dialplans, then fresh children from it; the old ones finish
        their calls. False, with a line in the log, when the new ones are no good: then the old ones stay."""
        if self._restarting.locked() or self.state is State.DRAINING:
            raise InternalError("a restart is going on" if self._restarting.locked() else "the fleet is ending")
        async with self._restarting:
            self._log.info("rolling restart")
            try:
                await self.nursery.renew()
            except SipServerError as problem:
                self._log.error("no restart, everything stays as it is", error=str(problem))
                return False
            for kind in RENEWED:
                if not await self.crew.renew(kind):
                    self._log.error("restart stopped: a fresh process did not become ready", kind=kind)
                    return False
            self._log.info("rolling restart done; the last calls of the old cells go on")
            return True

    def reload(self) -> None:
        """Read the dialplans again (SIGHUP)."""
        systemd_notify.reloading()
        self._start(self._reload(), "reload")

    def ask_restart(self) -> None:
        """Like `restart`, beside everything else (SIGUSR2)."""
        self._start(self._restart_quietly(), "restart")

    # --- for the crew -------------------------------------------------------------------------------------------------

    def started(self, child: Child) -> None:
        self.burials.note(child.spec, child.pid)

    def ready(self, child: Child) -> None:
        if self._books_changed:  # it may come from a warm parent that had read the dialplans before
            child.reload()
        self.front.changed()

    def changed(self) -> None:
        self.front.changed()

    def ended(self, child: Child) -> None:
        if child.crashed:
            self._log.error(
                "process died",
                of=child.name,
                child=child.pid,
                how=str(child.exit),
                reason=child.killed_for,
                calls=child.beat.calls,
            )
        else:
            self._log.info("process ended", of=child.name, child=child.pid)
        self.burials.bury(child.spec.run, child.spec.kind, child.name, child.killed_for or str(child.exit))

    # --- the machine --------------------------------------------------------------------------------------------------

    def _own(self) -> Node:
        fleet = self._settings.fleet
        inbound = self._plan.inbound_calls if self._plan is not None else 0
        cells = (
            CellAddress(fleet.host, child.spec.sip_port, inbound, _takes_none(child), child.spec.run)
            for child in self.crew.children(CELL, GATEWAY)
            if child.spec.sip_port and child.ready.is_set() and child.state is not ChildState.ENDED
        )
        draining = self.state in (State.HELD, State.DRAINING)
        return Node(self._bus.node, tuple(cells), self._calls(), draining, self._bus.run)

    def _with_calls(self) -> tuple[str, ...]:
        """The kinds of processes that have calls, which must end before the others stop."""
        return (CELL, GATEWAY) if self._settings.calls_by_http else (CELL,)

    def _calls(self) -> int:
        return sum(child.calls for child in self.crew.children(CELL, GATEWAY))

    async def _open_runtime(self, stack: contextlib.AsyncExitStack) -> list[Any]:
        """The folder, and the lock that two supervisors cannot both have."""
        runtime = self._settings.fleet.runtime
        try:
            runtime.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(runtime / "supervisor.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as problem:
            raise SettingsError(f"{runtime}: {problem.strerror}", key="fleet.runtime") from None
        stack.callback(os.close, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SettingsError(f"another supervisor runs with {runtime}", key="fleet.runtime") from None
        return await asyncio.to_thread(self._ledger.open)

    async def _make_plan(self) -> plan.Plan:
        facts = await self.crew.ask("probe")
        made = plan.make(self._settings, int(facts["capacity"]), self._cores)
        self._log.info("plan", cells=made.cells, calls=made.calls, pjsip_calls=made.capacity, places=len(made.slots))
        return made

    async def _fill_helpers(self, made: plan.Plan) -> None:
        """Whatever is not ready in time comes later; calls do without until then."""
        helpers = {"writer": 1, "speech": made.speech_workers, "gateway": made.gateways}
        ready = await asyncio.gather(*(self.crew.fill(kind, count) for kind, count in helpers.items()))
        for kind, good in zip(helpers, ready, strict=True):
            if not good:
                self._log.error("not ready, going on without", kind=kind)

    async def _before_drain(self) -> None:
        if not await self.front.flush():
            self._log.warning("the edge still has the old cells; they refuse calls, which go to the next cell")

    async def _drain(self) -> None:
        """No new calls on this machine, the running ones go on; then no cell lives."""
        self.state = State.DRAINING
        self.crew.begin_end()
        systemd_notify.stopping(f"draining {self._calls()} calls")
        within_s = self._settings.calls.drain_s
        self._log.info("draining", calls=self._calls(), within_s=within_s)
        systemd_notify.extend_timeout(within_s + 30)
        await self._tell_edge(True)
        await self.front.flush()
        killed = sum(await asyncio.gather(*(self.crew.drain(kind, within_s) for kind in self._with_calls())))
        self._log.info("drained", killed=killed)

    async def _tell_edge(self, draining: bool) -> None:
        if self._edge is None:
            return
        try:
            await self._edge.drain(draining)
        except SipServerError as problem:
            self._log.error("the edge was not told", draining=draining, error=str(problem))

    async def _stop_keepers(self) -> None:
        await asyncio.gather(*(keeper.stop() for keeper in self._keepers))

    async def _stop_helpers(self) -> None:
        """The writer last: it writes what the others told."""
        self.crew.begin_end()
        await self.crew.stop("gateway", "speech", CELL)
        await self.burials.finish(BURIAL_S)
        await self._bus.journal.flush(BURIAL_S)
        await self.crew.stop("writer")

    # --- in the background --------------------------------------------------------------------------------------------

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(self._settings.fleet.heartbeat_s)
            self.crew.look()
            self._troubles.look(serving=self.state in (State.SERVING, State.HELD))
            self.front.changed()
            if self.state is State.SERVING:
                systemd_notify.notify(f"STATUS={self._status_line()}")

    async def _watchdog(self) -> None:
        interval_s = systemd_notify.watchdog_interval_s()
        if interval_s is not None:
            await systemd_notify.Watchdog(interval_s, {}).run()

    async def _reload(self) -> None:
        await self._watcher.reload()
        systemd_notify.ready(self._status_line())

    def _on_book(self, book: Book) -> None:
        self._start(self._spread(book), "spread")

    def _on_problem(self, problem: ConfigError) -> None:
        self._problems.append(str(problem))
        self._log.error("dialplan refused, the old one stays", file=problem.file, line=problem.line, error=str(problem))

    async def _spread(self, book: Book) -> None:
        """Running cells read the changed files; the warm parent is renewed so that later ones have them too. It refuses
        to begin with a wrong file among them: then later cells read the changes when they are ready."""
        self._log.info("dialplans have changed", tenants=len(book.plans))
        self._books_changed = True
        self.crew.reload()
        try:
            await self.nursery.renew()
        except SipServerError as problem:
            self._log.warning("the warm parent keeps the old dialplans; new cells read the changes", error=str(problem))

    async def _restart_quietly(self) -> None:
        try:
            await self.restart()
        except SipServerError as problem:
            self._log.warning("no restart", error=str(problem))

    def _start(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            self._log.error("a task of the supervisor broke", task=task.get_name(), exc_info=problem)

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- for the operator ---------------------------------------------------------------------------------------------

    async def _hold(self) -> Mapping[str, Any]:
        return await self._take_calls(State.SERVING, State.HELD)

    async def _release(self) -> Mapping[str, Any]:
        return await self._take_calls(State.HELD, State.SERVING)

    async def _take_calls(self, before: State, after: State) -> Mapping[str, Any]:
        if self.state is before:
            self.state = after
            self._log.info(str(after), calls=self._calls())
            await self._tell_edge(not self._takes_calls_somewhere())
            await self.front.flush()
        if self.state is not after:
            raise InternalError(f"the fleet is {self.state}")
        return {"state": self.state, "calls": self._calls()}

    def _takes_calls_somewhere(self) -> bool:
        """A machine that is held still has an edge, and other machines' cells behind it."""
        return any(node.takes_calls for node in (self._own(), *self.front.others.values()))

    async def _ask_restart(self) -> Mapping[str, Any]:
        if self._restarting.locked():
            raise InternalError("a restart is going on")
        self.ask_restart()
        return {"state": self.state, "cells": len(self.crew.ready(CELL))}

    async def _ask_reload(self) -> Mapping[str, Any]:
        self._problems.clear()
        await self._watcher.reload()
        return {"tenants": len(self._watcher.book.plans), "problems": list(self._problems)}

    async def _facts(self) -> Mapping[str, Any]:
        made = self._plan
        return FleetFacts(
            state=str(self.state),
            restarts={**self.crew.restarts, "warm_parent": self.nursery.restarts},
            cells_ready=len(self.crew.ready(CELL)),
            cells_wanted=made.cells if made else 0,
            calls=self._calls(),
            capacity=made.calls if made else 0,
            bus_up=self._bus.up,
            records_behind=self._troubles.records_behind(),
            nodes=1 + len(self.front.others),
            orphans=len(self.burials.orphans),
            alarms=sorted(self.alarms.active),
        ).as_fields()

    async def _status(self) -> Mapping[str, Any]:
        made = self._plan
        children = [
            ChildStatus.of(child, seat.restarts)
            for seats in self.crew.seats.values()
            for seat in seats
            for child in seat.children()
            if child.pid
        ]
        return FleetStatus(
            node=self._bus.node,
            state=str(self.state),
            pid=os.getpid(),
            warm_parent=self.nursery.pid,
            cells_ready=len(self.crew.ready(CELL)),
            cells_wanted=made.cells if made else 0,
            calls=self._calls(),
            capacity=made.calls if made else 0,
            bus_up=self._bus.up,
            records_behind=self._troubles.records_behind(),
            children=children,
            orphans=[{"name": life.name, "pid": life.pid, "run": life.run} for life in self.burials.orphans],
            nodes={name: node.value() for name, node in self.front.others.items()},
            edge=await self._edge_stats(),
            programs={one.name: {"running": one.running, "restarts": one.restarts} for one in self._keepers},
            alarms=[
                {"name": one.name, "detail": one.detail, "since": one.since} for one in self.alarms.active.values()
            ],
        ).as_fields()

    async def _edge_stats(self) -> Mapping[str, Any]:
        if self._edge is None:
            return {}
        try:
            return await self._edge.stats()
        except SipServerError as problem:
            return {"error": str(problem)}

    def _status_line(self) -> str:
        cells = len(self.crew.ready(CELL))
        line = f"{self.state}: {self._calls()} calls, {cells} cells"
        return f"{line}, alarms: {', '.join(sorted(self.alarms.active))}" if self.alarms.active else line


def _takes_none(child: Child) -> bool:
    """The edge sends it no new calls: a cell that drains, or a gateway, whose calls come by HTTP. Its dialogs go on."""
    return child.state is ChildState.DRAINING or child.spec.kind == GATEWAY
