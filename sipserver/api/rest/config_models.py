"""What the REST API takes and gives about what a tenant configures."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Self

from pydantic import Field

from sipserver.api.plans import Current
from sipserver.api.rest.models import FOUR_BYTES, Given, Limit, Moment, Taken, Whole
from sipserver.calls.commands import OneLine
from sipserver.dialplan.agents import AgentSpec
from sipserver.dialplan.plan import Route
from sipserver.errors import ConfigError
from sipserver.store.dialplans import Head
from sipserver.tenants.branding import BrandingSettings
from sipserver.tenants.keys import ApiKey, Scope

BY = "`key:ID`, `user:EMAIL`, `operator`, or `system`, where a machine of a fleet had a file of its own."


class Dialplan(Given):
    """A dialplan without its text."""

    name: str
    version: int = Field(description="0: it was never changed by REST.")
    at: datetime | None = Field(description="When this version was made.")
    by: str = Field(description=BY)
    etag: str = Field(description="For `If-Match`.")

    @classmethod
    def of(cls, now: Current) -> Dialplan:
        return cls(name=now.name, version=now.number, at=now.at, by=now.actor, etag=etag(now.digest))


class Dialplans(Given):
    dialplans: list[Dialplan]


class HistoryAsked(Taken):
    limit: Limit = 50
    before: int | None = Field(
        default=None, ge=1, lt=FOUR_BYTES, description="`version` of the last one on the page before."
    )


class Version(Given):
    version: int
    at: datetime
    by: str = Field(description=BY)
    deleted: bool = Field(description="From here on there was none.")
    etag: str

    @classmethod
    def of(cls, head: Head) -> Version:
        return cls(version=head.number, at=head.at, by=head.actor, deleted=not head.digest, etag=etag(head.digest))


class History(Given):
    versions: list[Version] = Field(description="The newest first.")


class Rollback(Taken):
    version: Whole = Field(ge=1, lt=FOUR_BYTES, description="The one whose text is to be in force again.")


class Mistake(Given):
    line: int | None
    column: int | None
    where: str = Field(description="The place by its keys, such as `flows.main[0].say`.")
    reason: str = Field(description="What is wrong, and what to do.")

    @classmethod
    def of(cls, problem: ConfigError, lines: Sequence[str]) -> Mistake:
        return cls(line=problem.line, column=_column(problem, lines), where=problem.key, reason=problem.reason)


class Verdict(Given):
    valid: bool
    errors: list[Mistake]
    warnings: list[Mistake] = Field(description="What may be and is hardly meant.")


def etag(digest: str) -> str:
    return f'"{digest}"'


def _column(problem: ConfigError, lines: Sequence[str]) -> int | None:
    """Where the last word of the place begins in its line, from 1; else where the line begins."""
    if problem.line is None or not 0 < problem.line <= len(lines):
        return None
    line = lines[problem.line - 1]
    word = problem.key.rpartition(".")[2].partition("[")[0]
    found = line.find(word) if word else -1
    return (found if found >= 0 else len(line) - len(line.lstrip())) + 1


class Tool(Given):
    """A server that the agent may ask; what it sends along is not shown."""

    name: str
    description: str
    method: str
    url: str = Field(description="Without what follows `?`.")


class Agent(Given):
    name: str
    language: str
    prompt: str
    greeting: str
    stt: list[str]
    llm: str
    tts: str
    voice: str
    tools: list[str]
    http_tools: list[Tool]
    max_duration_s: float

    @classmethod
    def of(cls, name: str, spec: AgentSpec) -> Agent:
        return cls(
            name=name,
            language=spec.language,
            prompt=spec.prompt,
            greeting=spec.greeting,
            stt=list(spec.stt),
            llm=spec.llm.use,
            tts=spec.tts.use,
            voice=spec.tts.voice,
            tools=list(spec.tools),
            http_tools=[
                Tool(name=tool.name, description=tool.description, method=tool.method, url=_shown(tool.url))
                for tool in spec.http_tools
            ],
            max_duration_s=spec.max_duration_s,
        )


def _shown(url: str) -> str:
    """Without what may be a secret: a user, a query."""
    scheme, _, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    return f"{scheme}://{place.rpartition('@')[2].partition('?')[0]}{slash}{path.partition('?')[0].partition('#')[0]}"


class Agents(Given):
    agents: list[Agent]


class Number(Given):
    """A route of the dialplan: the first that matches has the call."""

    to: list[str] = Field(description="Patterns of the numbers; empty: any.")
    flow: str
    match: str = Field(description="All that it asks for, in one line.")

    @classmethod
    def of(cls, route: Route) -> Number:
        return cls(to=list(route.match.to or ()), flow=route.flow, match=route.match.why())


class Numbers(Given):
    numbers: list[Number]


class Trunk(Given):
    name: str
    state: str
    up: bool
    registration: str
    reachable: bool | None = Field(description="What the last OPTIONS said; null: none was sent.")
    reason: str
    since: float = Field(description="Unix time.")


class Trunks(Given):
    trunks: list[Trunk]


class Calls(Given):
    limit: int | None = Field(description="At a time; null: no limit.")
    used: int


class AgentCount(Given):
    limit: int | None = Field(description="In the dialplan; null: no limit.")
    used: int = Field(description="That the dialplan has now.")


class Storage(Given):
    limit: int | None = Field(description="Bytes of recordings and voicemail; null: no limit.")
    used: int = Field(description="Bytes that calls which are over have.")


class Minutes(Given):
    limit: int | None = Field(description="Begun minutes of answered calls a day (UTC); null: no limit.")
    used: int | None = Field(description="Today; null: they are not counted without a limit.")


class Spend(Given):
    """In the currency of `prices`, as decimal text."""

    limit: str | None = Field(description="What calls may cost; null: no limit.")
    used: str | None = Field(description="In this day or month (UTC); null: it is not watched without a limit.")


class Branding(Given):
    """As the settings have it (`tenants.NAME.branding`); null: there is none."""

    display_name: str | None
    logo_url: str | None = Field(description="https, or an image as `data:image/...;base64,`.")
    accent_colour: str | None = Field(description="`#rrggbb`.")
    support_url: str | None
    support_email: str | None

    @classmethod
    def of(cls, known: BrandingSettings) -> Branding:
        return cls(**{name: value or None for name, value in known.model_dump().items()})


class Tenant(Given):
    name: str
    calls: Calls
    calls_per_s: int | None = Field(description="Calls that may begin within a second; null: no limit.")
    api_per_s: int | None = Field(description="Requests a second with any of its keys; null: no limit.")
    minutes_a_day: Minutes
    spend_a_day: Spend
    spend_a_month: Spend
    agents: AgentCount
    storage_bytes: Storage
    numbers: list[str] = Field(description="What routes of a dialplan that comes by REST may take, by the settings.")
    targets: list[str] = Field(description="Where its calls may go, by the settings.")
    hosts: list[str] = Field(description="Which servers it may name, by the settings.")
    branding: Branding


class CreateKey(Taken):
    name: OneLine = Field(min_length=1, max_length=100)
    scopes: list[Scope] = Field(min_length=1, description="Some of those that the asking key has.")
    expires_at: Moment | None = Field(default=None, description="No later than the asking key's end; null: the same.")


class RotateKey(Taken):
    grace_s: Whole = Field(default=86_400, ge=0, le=7 * 86_400, description="How long the old one is good still.")


class KeysAsked(Taken):
    over: bool = Field(default=False, description="Also those that were revoked, or are over.")


class Key(Given):
    id: str
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    used_at: datetime | None = Field(description="To the minute.")

    @classmethod
    def of(cls, known: ApiKey, **more: Any) -> Self:
        return cls(
            id=known.id,
            name=known.name,
            scopes=sorted(known.scopes),
            created_at=known.created_at,
            expires_at=known.expires_at,
            revoked_at=known.revoked_at,
            used_at=known.used_at,
            **more,
        )


class KeyWithText(Key):
    """The only answers with the key itself."""

    key: str


class Keys(Given):
    keys: list[Key]
