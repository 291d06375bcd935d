"""Where an operator's commands about calls find them: in the database and the server of the settings, or at a server
that is asked by REST.

Owns that both look the same. Refuses to know the terminal.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from sipserver import console, settings
from sipserver.api.rest import models
from sipserver.api.token_socket import FOLLOWED
from sipserver.asking import ANSWER_S, Asking, Everywhere, Here
from sipserver.cli.operator_audit import OperatorAudit
from sipserver.cli.operator_bus import operator_bus
from sipserver.client import ApiError, Client
from sipserver.errors import CallerError, SettingsError, SipServerError
from sipserver.settings import Settings
from sipserver.store.database import Database, opened_to_read
from sipserver.store.reader import CallRow, Reader
from sipserver.tenants.audit_log import NOBODY

KEY = "SIPSERVER_KEY"
"""The environment variable with the API key: on a command line, others would see it."""
LOOK_S = 0.3
TAILED = 200
"""So many of the newest calls are followed at a time."""
READ = "events.read"
DONE = {"hangup": "call.ended", "transfer": "call.transferred"}
"""What the audit log calls it, as by REST."""
_OVER = 2**62
"""No event of a call that is over follows."""
RECENT = 500
"""How many calls back a part of an id is looked for."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What is shown of a call, as `calls.timeline.Row`. stored: all that is known, for JSON."""

    id: str
    tenant: str | None
    direction: str
    from_uri: str
    to_uri: str
    source: str
    state: str
    started_at: datetime
    answered_at: datetime | None
    ended_at: datetime | None
    end_reason: str | None
    sip_code: int | None
    recording_path: str | None
    recording_status: str | None
    stored: Mapping[str, Any]

    @classmethod
    def of_row(cls, row: CallRow) -> Shown:
        names = cls.__slots__[:-1]
        return cls(**{name: getattr(row, name) for name in names}, stored=asdict(row))

    @classmethod
    def of_model(cls, call: models.Call) -> Shown:
        return cls(
            id=call.id,
            tenant=None,
            direction=call.direction,
            from_uri=call.from_uri,
            to_uri=call.to_uri,
            source="",
            state=call.state,
            started_at=call.started_at or datetime.now(UTC),
            answered_at=call.answered_at,
            ended_at=call.ended_at,
            end_reason=call.end_reason,
            sip_code=call.sip_code,
            recording_path="by REST" if call.recording else None,
            recording_status=call.recording,
            stored=call.model_dump(mode="json"),
        )


class Told(Protocol):
    """An event, as `store.reader.EventRow` and the models of REST have it."""

    @property
    def seq(self) -> int: ...
    @property
    def at_ms(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def fields(self) -> Mapping[str, Any]: ...


class Source(Protocol):
    """Raises SipServerError for what is not there or cannot be done."""

    async def recent(self, limit: int, tenant: str | None = None) -> Sequence[Shown]:
        """The newest first."""
        ...

    async def get(self, call_id: str) -> Shown | None: ...

    async def events(self, call_id: str, after: int = -1) -> Sequence[Told]: ...

    def happening(self) -> AsyncIterator[tuple[str, Told]]:
        """What happens in calls from now on, with their ids; without an end."""
        ...

    async def live(self) -> Sequence[str]:
        """The ids of the calls that run now."""
        ...

    async def tell(self, call_id: str, verb: str, **options: Any) -> None:
        """verb: of `calls.commands`: hangup, transfer."""
        ...


async def find_live(source: Source, wanted: str) -> str:
    """The id of a running call, of which the beginning or the end is enough. Raises SipServerError."""
    found = [call_id for call_id in await source.live() if call_id.startswith(wanted) or call_id.endswith(wanted)]
    if len(found) != 1:
        what = "no live call has" if not found else f"{len(found)} live calls have"
        raise SipServerError(f"{what} {wanted} in its id; `sipserver calls list` shows them")
    return found[0]


async def find(source: Source, wanted: str) -> Shown:
    """A call by its id, the beginning or the end of it, or `last`. Raises SipServerError when there is not one."""
    if (exact := await source.get(wanted)) is not None:
        return exact
    recent = await source.recent(RECENT)
    if wanted == "last":
        found = list(recent[:1])
    else:
        found = [call for call in recent if call.id.startswith(wanted) or call.id.endswith(wanted)]
    if not found:
        raise SipServerError(f"no call with the id {wanted} among the last {RECENT}")
    if len(found) > 1:
        raise SipServerError(f"{len(found)} calls have {wanted} in their id; write more of it")
    return found[0]


@asynccontextmanager
async def open_source(config: Path, url: str) -> AsyncIterator[Source]:
    """url: of a server to ask by REST; empty: what the settings name. Raises SettingsError."""
    if not url:
        async with Own.open(settings.load(config)) as own:
            yield own
        return
    async with Client(url, key_of_environment()) as client:
        yield ByRest(client)


def key_of_environment() -> str:
    """Raises SettingsError when there is none."""
    key = os.environ.get(KEY, "")
    if not key:
        raise SettingsError(f"--url needs an API key in the environment variable {KEY} (`sipserver keys create`)")
    return key


@asynccontextmanager
async def running(loaded: Settings) -> AsyncIterator[Asking]:
    """The server, or the fleet, that runs with these settings."""
    if loaded.mode == "single":
        yield Here(lambda verb, arguments: console.ask(loaded, verb, arguments, ANSWER_S))
        return
    async with operator_bus(loaded) as bus:
        yield Everywhere(bus)


class Own:
    """The database, which needs no server that runs; what is told goes to the one that runs.

    What is read and told stands in the audit log before.
    """

    def __init__(self, loaded: Settings, database: Database) -> None:
        self._settings, self._reader = loaded, Reader(database)
        self._audit = OperatorAudit(loaded, database)

    @classmethod
    @asynccontextmanager
    async def open(cls, loaded: Settings) -> AsyncIterator[Own]:
        async with opened_to_read(loaded.store, connections=2) as database:
            yield cls(loaded, database)

    async def recent(self, limit: int, tenant: str | None = None) -> Sequence[Shown]:
        return [Shown.of_row(row) for row in await self._reader.list(limit, tenant=tenant)]

    async def get(self, call_id: str) -> Shown | None:
        row = await self._reader.get(call_id)
        return Shown.of_row(row) if row is not None else None

    async def events(self, call_id: str, after: int = -1) -> Sequence[Told]:
        if (row := await self._reader.get(call_id)) is not None:
            await self._audit.read(row.tenant, READ, f"call:{call_id}")
        return await self._events(call_id, after)

    async def happening(self) -> AsyncIterator[tuple[str, Told]]:
        """As the database gets it."""
        seen = {row.id: _OVER for row in await self.recent(TAILED) if row.ended_at is not None}
        for row in await self.recent(TAILED):
            if row.id not in seen:
                seen[row.id] = max((event.seq for event in await self._events(row.id)), default=-1)
        while True:
            for row in reversed(await self.recent(TAILED)):
                for event in await self._events(row.id, seen.get(row.id, -1)) if seen.get(row.id) != _OVER else ():
                    await self._audit.read(row.tenant or "", FOLLOWED, f"tenant:{row.tenant or NOBODY}")
                    seen[row.id] = event.seq
                    yield row.id, event
                if row.ended_at is not None:
                    seen[row.id] = _OVER
            await asyncio.sleep(LOOK_S)

    async def _events(self, call_id: str, after: int = -1) -> Sequence[Told]:
        found: list[Told] = []
        while page := await self._reader.events(call_id, after_seq=found[-1].seq if found else after):
            found += page
        return found

    async def live(self) -> Sequence[str]:
        """They are asked themselves: that works while the database is away."""
        async with running(self._settings) as server:
            return [str(call["id"]) for call in await server.live()]

    async def tell(self, call_id: str, verb: str, **options: Any) -> None:
        async with running(self._settings) as server:
            told = next((str(call["tenant"]) for call in await server.live() if call["id"] == call_id), "")
            await self._audit.do(told, DONE[verb], lambda: server.ask(call_id, verb, **options), which=call_id)


class ByRest:
    """A tenant's calls, by its API key."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def recent(self, limit: int, tenant: str | None = None) -> Sequence[Shown]:
        if tenant is not None:
            raise CallerError("--tenant does not go with --url: an API key has one tenant")
        return [Shown.of_model(call) async for call in self._client.calls(limit)]

    async def get(self, call_id: str) -> Shown | None:
        try:
            return Shown.of_model(await self._client.call(call_id))
        except ApiError as refusal:
            if refusal.status in (404, 422):
                return None
            raise

    async def events(self, call_id: str, after: int = -1) -> Sequence[Told]:
        return [event async for event in self._client.events(call_id, after)]

    async def happening(self) -> AsyncIterator[tuple[str, Told]]:
        async for event in self._client.live():
            yield event.call_id, event

    async def live(self) -> Sequence[str]:
        return [call.id async for call in self._client.calls(RECENT, open=True)]

    async def tell(self, call_id: str, verb: str, **options: Any) -> None:
        match verb:
            case "hangup":
                await self._client.hangup(call_id)
            case "transfer":
                await self._client.transfer(call_id, **options)
            case _:
                raise CallerError(f"{verb} cannot be asked for by REST")
