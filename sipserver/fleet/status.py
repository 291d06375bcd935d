"""The fleet's view of itself: what `sipserver fleet status` prints and what metrics count. Plain values."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sipserver.fleet.child import Child


@dataclass(frozen=True, slots=True)
class ChildStatus:
    """port: of its SIP socket, 0 for others than cells. age_s: since its fork. silent_ms: since its last word.
    restarts: of its seat."""

    kind: str
    name: str
    pid: int
    run: str
    state: str
    port: int
    calls: int
    age_s: float
    restarts: int
    silent_ms: int
    loop_lag_ms: float
    sip_age_ms: float | None
    media_age_ms: float | None
    fork_to_ready_ms: float

    @classmethod
    def of(cls, child: Child, restarts: int) -> ChildStatus:
        now_s, beat = asyncio.get_running_loop().time(), child.beat
        return cls(
            kind=child.spec.kind,
            name=child.name,
            pid=child.pid,
            run=child.spec.run,
            state=str(child.state),
            port=child.spec.sip_port,
            calls=child.calls,
            age_s=round(now_s - child.started_s, 1),
            restarts=restarts,
            silent_ms=round((now_s - child.heard_at_s) * 1000),
            loop_lag_ms=beat.loop_lag_ms,
            sip_age_ms=beat.sip_age_ms,
            media_age_ms=beat.media_age_ms,
            fork_to_ready_ms=child.fork_to_ready_ms,
        )


@dataclass(frozen=True, slots=True)
class FleetStatus:
    """state: starting, serving, held (takes no new calls, goes on), draining (will end). nodes: other machines, by
    name. edge: what it says of itself; empty where this machine has none. orphans: processes of an earlier supervisor
    that still finish their calls. cells_wanted: children names those alone that live, and one that crashes again and
    again waits before it is started."""

    node: str
    state: str
    pid: int
    warm_parent: int
    cells_ready: int
    cells_wanted: int
    calls: int
    capacity: int
    bus_up: bool
    records_behind: int
    children: Sequence[ChildStatus]
    orphans: Sequence[Mapping[str, Any]]
    nodes: Mapping[str, Mapping[str, Any]]
    edge: Mapping[str, Any]
    programs: Mapping[str, Mapping[str, Any]]
    alarms: Sequence[Mapping[str, Any]]

    def as_fields(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class FleetFacts:
    """What the supervisor alone can count: for metrics. restarts: children that had to be replaced, by kind. alarms:
    the names of those that are on."""

    state: str
    restarts: Mapping[str, int]
    cells_ready: int
    cells_wanted: int
    calls: int
    capacity: int
    bus_up: bool
    records_behind: int
    nodes: int
    orphans: int
    alarms: Sequence[str]

    def as_fields(self) -> dict[str, Any]:
        return asdict(self)
