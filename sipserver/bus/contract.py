"""What a bus can do. Two backends satisfy it: `memory` (one process) and `redis`. All methods: loop thread.

A bus belongs to one process, known by `node` (the machine) and `run` (this life of the process). While Redis is away
nothing here raises for that reason alone unless it says so: calls must go on.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sipserver.journal import Entry

Json = Mapping[str, Any]
"""Plain JSON-able fields."""

Handler = Callable[[str, Json], Awaitable[Json]]
"""(verb, arguments) -> answer. A SipServerError that it raises reaches the asker with class name, text, codes."""


class Delivery(Protocol):
    """Some entries in order, kept by the bus until `done`."""

    @property
    def entries(self) -> Sequence[Entry]: ...
    @property
    def soon(self) -> bool:
        """Somebody waits for one of them."""
        ...

    async def done(self) -> None:
        """They are written; forget them. Without it they come again (to this reader or the next)."""
        ...


class Journal(Protocol):
    """Entries on their way from those who tell to the one who writes; at least once, in order within a run."""

    def tell(self, entry: Entry, *, soon: bool = False) -> None:
        """Never blocks, never raises. Held in memory, beyond that bound in the spool on disk, until the bus has it.

        soon: somebody waits for it, so it does not wait for others to travel with, nor does what was told before it.
        """
        ...

    async def flush(self, timeout_s: float) -> bool:
        """True when all that was told has reached the bus; what has not is in the spool when this returns False."""
        ...

    async def adopt(self, run: str) -> int:
        """Deliver what the spool of a dead process of this node still holds; waits for the bus if it is away. Returns
        the number of entries. Never for a process that lives.
        """
        ...

    def read(self, node: str) -> AsyncGenerator[Delivery, None]:
        """The journal of a node for its one reader, from the first entry that is not `done`; waits for more for ever.
        A second reader that takes over after the first died is given what that one did not finish.
        """
        ...

    @property
    def depth(self) -> int:
        """Entries told and not yet on the bus, memory and spool together."""
        ...

    @property
    def dropped(self) -> int:
        """Entries that are lost since the process began, because neither the bus nor the disk took them."""
        ...


class Subscription(Protocol):
    async def close(self) -> None: ...


class Commands(Protocol):
    """Questions with an answer. An address is `run:<run>`, `call:<call id>`, `node:<node>` or `all` (nobody answers).

    A call needs no address of its own: whoever holds the lease `call/<call id>` with `run` in its value is asked at
    `run:<run>`, with `call_id` among the arguments.
    """

    async def serve(self, address: str, handler: Handler) -> Subscription:
        """Answer what is asked of this address, until the subscription is closed. Handlers run concurrently."""
        ...

    async def ask(self, address: str, verb: str, arguments: Json, *, timeout_s: float = 2.0) -> Json:
        """Raises NotFound (nobody serves it), BusDown, or what the handler raised, as RemoteError."""
        ...

    async def announce(self, verb: str, arguments: Json) -> None:
        """To everyone who serves `all`; nobody answers. Lost while the bus is away."""
        ...


class Lease(Protocol):
    """A key that lives as long as its owner. Renewed by the bus by itself until `close`; comes back after an outage."""

    def update(self, value: Json, *, soon: bool = True) -> None:
        """What the next renewal writes. soon: it comes at once instead of within a third of the lease's time."""
        ...

    async def close(self) -> None: ...

    def drop(self) -> None:
        """As `close`, without waiting: gone for others soon. Not for a lease that was contended for."""
        ...


class Leases(Protocol):
    """Who is there: `node/<node>`, `run/<run>`, `call/<call id>`, `writer/<node>`, ... with small JSON values."""

    async def hold(self, key: str, value: Json, *, ttl_s: float | None = None) -> Lease:
        """Hold a key of our own. ttl_s: the settings' lease_s by default."""
        ...

    def keep(self, key: str, value: Json) -> Lease:
        """As `hold`, without waiting: others see it soon. For keys that come and go often; they travel together."""
        ...

    async def contend(self, key: str, value: Json) -> Lease | None:
        """Hold a key that several want; None while another has it, or while nobody can know. Lost leases are noticed:
        `Lease.close` is a no-op then and `get` names the other.
        """
        ...

    async def get(self, key: str) -> Json | None:
        """Raises BusDown, also when it may only be missing because the bus has just come back."""
        ...

    async def find(self, prefix: str) -> dict[str, Json]:
        """All live keys that begin so. Raises BusDown, also for a lease's length after an outage in which leases may
        have run out: what is missing then may be there.
        """
        ...


@dataclass(frozen=True, slots=True)
class Full:
    """A limit that was reached. shared: False when Redis is away and only our own share of it is used up: another
    process may still have a place."""

    scope: str
    limit: int
    shared: bool


class Limits(Protocol):
    """Counted places, e.g. scope `tenant/acme` with 10 calls. Nothing is ever given twice, and nothing leaks: counts
    belong to a run, are set right with every renewal of the lease, and vanish with the run."""

    async def take(self, places: Mapping[str, int]) -> Full | None:
        """One place in every scope (scope -> limit), all or none. None: taken. Answers within 100 ms also when Redis
        hangs: then by the last known share."""
        ...

    def give(self, scopes: Sequence[str]) -> None:
        """Back with them; never blocks."""
        ...

    async def used(self, scopes: Sequence[str]) -> Mapping[str, int]:
        """How many places of each are in use in all processes, as far as these have told: of those with many free some
        taken or given back within a lease may be missing. Raises BusDown.
        """
        ...


@dataclass(frozen=True, slots=True)
class Draw:
    """Of something that is used up within a time which the scope names, e.g. `minutes_a_day/acme/2026-11-28`. amount 0:
    is anything left; less: some was not needed. always: whatever is left. lives_s: how long the scope matters.
    """

    limit: int
    amount: int = 1
    lives_s: float = 60.0
    always: bool = False


@dataclass(frozen=True, slots=True)
class Drawn:
    """full: the limit that was reached, so that nothing was drawn. used: by scope, with what was drawn."""

    full: Full | None
    used: Mapping[str, int]


class Meters(Protocol):
    """What is used up and not given back. Nothing is ever drawn twice; it stays used when a run dies."""

    async def draw(self, wanted: Mapping[str, Draw]) -> Drawn:
        """From every scope, all or none. Answers within 100 ms also when Redis hangs: then by our share of what was
        left when it was heard last."""
        ...

    async def put(self, scope: str, used: int, lives_s: float, *, lower: bool = False) -> None:
        """Somebody knows how much was used: it is so much at least; lower: exactly. Nothing while Redis is away."""
        ...


class Once(Protocol):
    """What may happen once only, in all processes together."""

    async def first(self, key: str, within_s: float) -> bool:
        """True for the first one that asks for this key within within_s; False for all others, and while Redis is away:
        nobody can know then.
        """
        ...


Heard = Callable[[Entry, int], None]
"""(entry, before_us): an event, and the moment of the one before it of the same tenant and run; 0: it is the first."""


class Live(Protocol):
    """Events of calls to whoever listens to their tenant now, at once and without a promise: what is missing shows in
    before_us, and stands in the records a little later.
    """

    def tell(self, entry: Entry) -> None:
        """Of all events of this process, in order; others are ignored. Never blocks, never raises."""
        ...

    async def hear(self, tenant: str, heard: Heard) -> Subscription:
        """The events of all processes; those of each in order. One at a time for a tenant. heard must not block."""
        ...


class Bus(Protocol):
    """`open`, use, `close`. up: Redis answers now (always, in memory)."""

    @property
    def journal(self) -> Journal: ...
    @property
    def commands(self) -> Commands: ...
    @property
    def leases(self) -> Leases: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def meters(self) -> Meters: ...
    @property
    def once(self) -> Once: ...
    @property
    def live(self) -> Live: ...
    @property
    def node(self) -> str: ...
    @property
    def run(self) -> str: ...
    @property
    def up(self) -> bool: ...

    async def open(self) -> None:
        """Raises SettingsError for a server that refuses us (address, password, version); one that is merely away is
        waited for in the background."""
        ...

    async def close(self) -> None:
        """Flush the journal (what does not go is in the spool), give up leases and counts of this run."""
        ...

    async def forget_run(self, run: str) -> None:
        """A process is dead: its leases and its counts go now instead of when they run out. While the bus is away
        nothing happens.
        """
        ...
