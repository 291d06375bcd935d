"""The children of a machine: every seat is filled, what dies is replaced, what shall be renewed is renewed.

Owns seats, starts, deaths, hangs and drains. Refuses to know the edge, the bus and what signals to the supervisor mean:
whoever wants to know is called back. Loop thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sipserver.errors import InternalError
from sipserver.fleet.alarms import Alarms
from sipserver.fleet.backoff import Backoff, CrashRate
from sipserver.fleet.child import Child, Spawn, State
from sipserver.fleet.health import Watch, hung_part
from sipserver.fleet.plan import Plan, Slot
from sipserver.fleet.process import ChildSpec, Kinds
from sipserver.fleet.slots import Slots
from sipserver.log import logger
from sipserver.settings import Settings

CELL, GATEWAY = "cell", "gateway"
END_GRACE_S = 5.0
"""How long a child may take to end after the time that it was given."""
ABORT_S = 1.0
"""Between SIGABRT, which leaves a trace in the log, and SIGKILL."""
SLOT_WAIT_S = 1.0


@dataclass(eq=False)
class Seat:
    """A place of a kind that shall have exactly one child. coming: the one that will replace it; leaving: those that it
    had and that still finish their calls."""

    kind: str
    index: int
    backoff: Backoff
    child: Child | None = None
    coming: Child | None = None
    leaving: list[Child] = field(default_factory=list)
    restarts: int = 0
    refill: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.index:02d}"

    def children(self) -> Iterator[Child]:
        yield from (child for child in (self.child, self.coming, *self.leaving) if child is not None)


class Watcher(Protocol):
    """Who wants to know. Called on the loop; must not block."""

    def started(self, child: Child) -> None:
        """It was forked."""

    def ready(self, child: Child) -> None:
        """It can work."""

    def changed(self) -> None:
        """A cell has gone or begun to drain."""

    def ended(self, child: Child) -> None:
        """It is dead: `child.exit`."""


class Crew:
    """`fill`, `renew`, `drain`, `stop`, `close`.

    before_drain: awaited between the moment when a cell's successor is ready and the order to drain: nobody sends it
    calls any more.
    """

    def __init__(
        self,
        settings: Settings,
        settings_file: Path,
        node: str,
        kinds: Kinds,
        spawn: Spawn,
        watcher: Watcher,
        alarms: Alarms,
        before_drain: Callable[[], Awaitable[None]],
    ) -> None:
        self._settings, self._settings_file, self._node = settings, settings_file, node
        self._kinds, self._spawn, self._watcher, self._alarms = kinds, spawn, watcher, alarms
        self._before_drain = before_drain
        self._slots = Slots((), settings.fleet.host)
        self._plan: Plan | None = None
        self._gate = asyncio.Semaphore(max(2, os.cpu_count() or 1))
        self._rates: dict[str, CrashRate] = {}
        self._watch = Watch(settings.fleet.heartbeat_s)
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending = False
        self._lacking: set[str] = set()
        self._housed = (CELL, GATEWAY) if settings.calls_by_http else (CELL,)
        self._log = logger("fleet")
        self.seats: dict[str, list[Seat]] = {}

    # --- who is there -------------------------------------------------------------------------------------------------

    def children(self, *kinds: str) -> list[Child]:
        """All of these kinds (of all kinds if none is named), also those that drain."""
        wanted = kinds or tuple(self.seats)
        return [child for kind in wanted for seat in self.seats.get(kind, ()) for child in seat.children()]

    def ready(self, kind: str) -> list[Child]:
        """Those that work, one a seat."""
        children = (seat.child for seat in self.seats.get(kind, ()))
        return [child for child in children if child is not None and child.state is State.READY]

    @property
    def restarts(self) -> dict[str, int]:
        """Children that had to be replaced, by kind."""
        return {kind: sum(seat.restarts for seat in seats) for kind, seats in self.seats.items()}

    # --- what shall be ------------------------------------------------------------------------------------------------

    def adopt_plan(self, plan: Plan) -> None:
        self._plan = plan
        self._slots = Slots(plan.slots, self._settings.fleet.host)

    async def fill(self, kind: str, count: int) -> bool:
        """Start `count` of a kind; a few cells at a time, so that a loaded machine does not hear it. True when all are
        ready, False when some are not after ready_s each."""
        fleet = self._settings.fleet
        backoff = (*fleet.backoff_s, fleet.alarm_s)
        seats = [Seat(kind, index, Backoff(*backoff)) for index in range(count)]
        self.seats[kind] = seats
        self._rates[kind] = CrashRate(fleet.alarm_crashes, fleet.alarm_s)
        starts = await asyncio.gather(*(self._start(seat) for seat in seats))
        return all(child is not None and child.ready.is_set() for child in starts)

    async def ask(self, kind: str) -> dict[str, Any]:
        """Start a child for a question: the facts with which it says `ready`; it ends by itself. Raises InternalError
        when it dies without an answer or takes too long."""
        child = Child(
            self._spec(Seat(kind, 0, Backoff(0, 0, 0)), None), None, on_ready=_ignore, on_leave=_ignore, on_end=_ignore
        )
        try:
            await child.launch(self._spawn)
            await _first(child, self._settings.fleet.ready_s)
            if not child.ready.is_set():
                raise InternalError(f"{kind}: {f'it ended with {child.exit}' if child.ended.is_set() else 'no answer'}")
            child.stop()
            await _ended_within(child, END_GRACE_S)
            return dict(child.facts)
        finally:
            if child.pid:
                child.kill(signal.SIGKILL, "its answer is all that was wanted")
                await child.ended.wait()

    async def renew(self, kind: str) -> bool:
        """Every seat gets a fresh child; the old one drains when the new one is ready. No fewer work than before,
        except of kinds that cannot overlap. False when a new child did not become ready: the rest stays as it is."""
        if not self._kinds[kind].overlap:
            return all([await self._renew_in_place(seat) for seat in self.seats.get(kind, ())])
        failed = asyncio.Event()
        await asyncio.gather(*(self._renew(seat, failed) for seat in self.seats.get(kind, ())))
        return not failed.is_set()

    def reload(self) -> None:
        for child in self.children():
            child.reload()

    def begin_end(self) -> None:
        """From now on nothing is replaced."""
        self._ending = True

    async def drain(self, kind: str, within_s: float) -> int:
        """All of a kind end when their work is done, after the deadline at the latest. Returns how many were killed."""
        children = self.children(kind)
        for child in children:
            child.drain(within_s)
        return await self._all_ended(children)

    async def stop(self, *kinds: str) -> int:
        """All of these kinds end now, in order. Returns how many had to be killed."""
        children = self.children(*kinds) if kinds else []
        for child in children:
            child.stop()
        return await self._all_ended(children)

    def hurry(self) -> None:
        """Whatever drains ends now."""
        for child in self.children():
            if child.state is State.DRAINING:
                child.stop()

    async def close(self) -> None:
        """Kill what is left and end the tasks."""
        self._ending = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        left = [child for child in self.children() if child.pid]
        for child in left:
            child.kill(signal.SIGKILL, "left over")
        await asyncio.gather(*(child.ended.wait() for child in left))

    def look(self) -> None:
        """Once every heartbeat: kill what hangs, what does not become ready, what does not end."""
        now_s = asyncio.get_running_loop().time()
        fleet = self._settings.fleet
        self._watch.look(now_s)
        for child in self.children():
            if not child.pid:  # it waits for a warm parent
                continue
            silent_s = self._watch.silent_s(max(child.heard_at_s, child.started_s), now_s)
            since_s = self._watch.silent_s(child.started_s, now_s)
            if part := hung_part(child.beat, silent_s, fleet.hang_s):
                self._kill(child, f"{part} hangs")
            elif child.state is State.STARTING and since_s > fleet.ready_s:
                self._kill(child, "not ready in time")
            elif child.state is State.DRAINING and now_s > child.end_by_s + END_GRACE_S:
                self._kill(child, "did not end in time")
        lacking = f"{', '.join(sorted(self._lacking))}: no free port in fleet.sip_ports"
        self._alarms.set("no_place_for_cell", bool(self._lacking), lacking)
        for kind, rate in self._rates.items():
            self._alarms.set(f"crash_loop_{kind}", rate.alarming(now_s), "it dies again and again")

    # --- inside -------------------------------------------------------------------------------------------------------

    def _spec(self, seat: Seat, slot: Slot | None) -> ChildSpec:
        place: dict[str, Any] = {}
        if slot is not None and self._plan is not None:
            place = {
                "host": self._settings.fleet.host,
                "sip_port": slot.sip_port,
                "rtp_ports": slot.rtp_ports,
                "inbound_calls": self._plan.inbound_calls,
                "capacity": self._plan.capacity,
            }
        return ChildSpec(
            kind=seat.kind,
            name=seat.name,
            index=seat.index,
            node=self._node,
            run=uuid.uuid4().hex,
            settings_file=self._settings_file,
            settings=self._settings,
            **place,
        )

    async def _start(self, seat: Seat) -> Child | None:
        """One try, until the child is ready or dead; its death leads to the next try. None: the fleet ends."""
        slot = await self._slot(seat)
        async with self._gate if seat.kind == CELL else contextlib.nullcontext():
            if self._ending:
                self._give(slot)
                return None
            seat.child = child = self._child(seat, slot)
            await self._launch(child)
        return child

    def _child(self, seat: Seat, slot: Slot | None) -> Child:
        return Child(
            self._spec(seat, slot),
            slot,
            on_ready=self._on_ready,
            on_leave=lambda child: self._on_leave(seat, child),
            on_end=lambda child: self._on_end(seat, child),
        )

    async def _launch(self, child: Child) -> None:
        """Fork; return when the child is ready or dead."""
        try:
            await child.launch(self._spawn)
        except (InternalError, OSError) as problem:
            self._log.error("not forked", of=child.name, error=str(problem))
            child.abandon()
            return
        except asyncio.CancelledError:  # nobody waits for children any more
            self._ending = True
            if not child.pid:
                child.abandon()
            raise
        self._watcher.started(child)
        await _first(child, None)

    async def _slot(self, seat: Seat, *, renewal: bool = False) -> Slot | None:
        """A place for a cell, or for a gateway that takes calls. A renewal never takes what a dead cell needs."""
        if seat.kind not in self._housed:
            return None
        told = False
        while not self._ending:
            needed = sum(one.child is None for one in self.seats.get(CELL, ())) if renewal else 0
            slot = self._slots.take() if self._slots.free > needed else None
            if slot is not None:
                self._lacking.discard(seat.name)
                return slot
            if not told:
                self._log.warning("no free place for a cell now, waiting for one", of=seat.name)
                told = True
            if not renewal:
                self._lacking.add(seat.name)
            await self._slots.wait(SLOT_WAIT_S)
        return None

    def _give(self, slot: Slot | None) -> None:
        if slot is not None:
            self._slots.give(slot)

    async def _renew(self, seat: Seat, failed: asyncio.Event) -> None:
        slot = await self._slot(seat, renewal=True)
        async with self._gate:
            if failed.is_set() or self._ending:
                self._give(slot)
                return
            seat.coming = coming = self._child(seat, slot)
            await self._launch(coming)
            if not coming.ready.is_set() or coming.state is not State.READY:
                failed.set()
                return
            old, seat.child, seat.coming = seat.child, coming, None
            if old is not None:
                seat.leaving.append(old)
                old.will_drain(self._settings.calls.drain_s)
        self._watcher.changed()
        await self._before_drain()
        if old is not None:
            old.drain(self._settings.calls.drain_s)

    async def _renew_in_place(self, seat: Seat) -> bool:
        old = seat.child
        if old is not None:
            old.drain(self._settings.calls.drain_s)
            await old.ended.wait()
        if seat.refill is not None:
            await seat.refill
        return seat.child is not None and seat.child.ready.is_set()

    def _on_ready(self, child: Child) -> None:
        self._log.info("ready", of=child.name, child=child.pid, took_ms=child.fork_to_ready_ms)
        self._watcher.ready(child)

    def _on_leave(self, seat: Seat, child: Child) -> None:
        self._log.warning("it drains, and nobody here told it to; another takes its place", of=child.name)
        if seat.child is child:
            seat.child = None
            seat.leaving.append(child)
            seat.refill = self._task(self._refill(seat, child, 0), f"refill {seat.name}")
        self._watcher.changed()

    def _on_end(self, seat: Seat, child: Child) -> None:
        now_s = asyncio.get_running_loop().time()
        self._give(child.slot)
        if child in seat.leaving:
            seat.leaving.remove(child)
        if child.crashed:
            self._rates[seat.kind].crashed(now_s)
        if child.pid:
            self._watcher.ended(child)
        if seat.coming is child:
            seat.coming = None
        elif seat.child is child:
            seat.child = None
            if not self._ending:
                seat.refill = self._task(self._refill(seat, child, now_s - child.started_s), f"refill {seat.name}")
        self._watcher.changed()

    async def _refill(self, seat: Seat, old: Child, lived_s: float) -> None:
        if not old.asked_to_end:
            seat.restarts += 1
            pause_s = seat.backoff.after(lived_s)
            if pause_s:
                self._log.warning("it died again; waiting before the next try", of=seat.name, pause_s=pause_s)
            await asyncio.sleep(pause_s)
        await self._start(seat)

    def _kill(self, child: Child, reason: str) -> None:
        if child.killed_for:
            return
        self._log.error("killed", of=child.name, child=child.pid, reason=reason, calls=child.calls)
        child.kill(signal.SIGABRT, reason)
        self._task(self._kill_for_good(child, reason), f"kill {child.name}")

    async def _kill_for_good(self, child: Child, reason: str) -> None:
        await _ended_within(child, ABORT_S)
        if not child.ended.is_set():
            child.kill(signal.SIGKILL, reason)

    async def _all_ended(self, children: Sequence[Child]) -> int:
        """`look` kills those that take too long."""
        await asyncio.gather(*(child.ended.wait() for child in children))
        return sum(bool(child.killed_for) for child in children)

    def _task(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            self._log.error("a task of the crew broke", task=task.get_name(), exc_info=problem)


def _ignore(_child: Child) -> None:
    """Nobody waits for this child's news."""


async def _first(child: Child, timeout_s: float | None) -> None:
    """Until it is ready or dead, or until the time is over."""
    waits = [asyncio.ensure_future(child.ready.wait()), asyncio.ensure_future(child.ended.wait())]
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


async def _ended_within(child: Child, timeout_s: float) -> None:
    wait = asyncio.ensure_future(child.ended.wait())
    try:
        await asyncio.wait({wait}, timeout=timeout_s)
    finally:
        wait.cancel()
        await asyncio.gather(wait, return_exceptions=True)
