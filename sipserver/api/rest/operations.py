"""Operations of the REST API as data, and the aiohttp application that serves them.

One `Operation` says what is checked before its handler runs, and what the OpenAPI document tells about it: so both
cannot differ. Refuses to know what the operations do.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from aiohttp import web
from pydantic import BaseModel, ValidationError

from sipserver.api.rest import deeds
from sipserver.api.rest.access import Access, Who
from sipserver.api.rest.deeds import Deed, Note
from sipserver.api.rest.problems import as_problems, problem, wrong_fields
from sipserver.gate.requests import address_of
from sipserver.tenants.keys import Scope
from sipserver.tenants.principal import Principal

MAX_BODY_BYTES = 64 * 1024
IDEMPOTENCY_KEY = "Idempotency-Key"
MOST_HEADER = 255
"""Characters of a header that an operation reads."""


async def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, checked. key: who asks, a program or a person. path: the parts of the path by name. query, body: of
    the operation's models. call_id: under which a call is to be placed; empty: under any. noted: keeps that something
    is read in the audit log; a handler that sends by itself waits for it before the first byte, for all others it is
    done.
    """

    key: Principal
    path: Mapping[str, str]
    query: Any
    body: Any
    request: web.Request
    call_id: str = ""
    noted: Callable[[], Awaitable[None]] = _nothing


@dataclass(frozen=True, slots=True)
class Answered:
    """What an operation answers; a response of its own instead is sent as it is. detail: more for the audit log."""

    body: BaseModel | None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    detail: Mapping[str, Any] = field(default_factory=dict)


Does = Callable[[Asked], Awaitable[Answered | web.StreamResponse]]
Finds = Callable[[Asked, str], Awaitable[Answered | None]]


@dataclass(frozen=True, slots=True)
class Operation:
    """name: operationId. path: below /api/v1, with {names}. scope: what it needs. summary, detail: for people. answer:
    the model of the body; None: there is none, or it is a file of the media type. status: of success. refusals:
    statuses beyond those that every operation may answer.
    """

    name: str
    method: str
    path: str
    scope: Scope | Who
    does: Does
    summary: str
    detail: str = ""
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    takes: str = ""
    """The media type of a body that is no JSON, which the handler reads."""
    answer: type[BaseModel] | None = None
    status: int = 200
    also: Mapping[int, str] = field(default_factory=dict)
    """Further statuses of success, and what each says."""
    media_type: str = ""
    """Of a file; several with `, ` between."""
    refusals: tuple[int, ...] = ()
    deed: str = ""
    """What the audit log calls it, e.g. `call.created`; empty: it is no deed. Of one that changes something the log has
    `DEED.asked` before, and afterwards the deed or `DEED.failed`."""
    of: str = ""
    """What it is done to, e.g. `call`: its id is in the path, or in what is answered."""
    shows: tuple[str, ...] = ()
    """Fields of the body that the audit log has, too: it is never erased, so neither numbers nor what is said."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of the request: name -> what it is for."""
    told_once: str = ""
    """The field of the answer that is a secret: it is not kept for those who send the request again."""
    finds: Finds | None = None
    """The call that an earlier request placed under this id, as it would be answered; None: it placed none."""

    @property
    def once(self) -> bool:
        """Whether it heeds an Idempotency-Key: it does something for a tenant, and answers with no file."""
        return self.method == "POST" and isinstance(self.scope, Scope) and self.answer is not None and not self.takes

    @property
    def reads(self) -> Mapping[str, str]:
        """All headers of the request: name -> what it is for."""
        return {**self.headers, IDEMPOTENCY_KEY: "Any text of your own, good for a day."} if self.once else self.headers


Work = Callable[[Asked], Awaitable[web.StreamResponse]]


class Once(Protocol):
    """Does a work, or answers as it was answered before."""

    async def __call__(self, operation: Operation, asked: Asked, work: Work) -> web.StreamResponse: ...


def application(
    access: Access, note: Note, once: Once, operations: Sequence[Operation], more: Sequence[web.RouteDef] = ()
) -> web.Application:
    """To be mounted at /api/v1. more: what needs no key."""
    app = web.Application(middlewares=[as_problems], client_max_size=MAX_BODY_BYTES)
    routes = [web.route(each.method, _routed(each.path), _handler(access, note, once, each)) for each in operations]
    app.add_routes(routes)
    app.add_routes(more)
    return app


_FORMS = {"id": "[0-9a-fA-F-]{36}", "user": "[0-9a-f]{32}", "session": "[0-9a-f]{32}"}


def _routed(path: str) -> str:
    """An id is a UUID: nothing else is one, so that `/calls/create` is no call."""
    for name, form in _FORMS.items():
        path = path.replace(f"{{{name}}}", f"{{{name}:{form}}}")
    return path


def _handler(
    access: Access, note: Note, once: Once, operation: Operation
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def work(asked: Asked) -> web.StreamResponse:
        return await _answered(operation, note, asked)

    async def handle(request: web.Request) -> web.StreamResponse:
        who = await access.admit(request, operation.scope)
        asked = await _checked(operation, who, request)
        return asked if isinstance(asked, web.Response) else await once(operation, asked, work)

    return handle


async def _checked(operation: Operation, who: Principal, request: web.Request) -> Asked | web.Response:
    """Or what is wrong with it."""
    query: BaseModel | None = None
    body: BaseModel | None = None
    for name in operation.reads:
        if len(request.headers.get(name, "")) > MOST_HEADER:
            reason = f"has more than {MOST_HEADER} characters"
            errors = [{"where": f"header.{name}", "reason": reason}]
            return problem(422, "a header is not as it should be", errors=errors)
    if operation.query is not None:
        sent = _query(request)
        try:
            query = operation.query.model_validate(sent)
            wrong = _loose(query, sent)
        except ValidationError as refused:
            wrong = wrong_fields(refused, "query")
        if wrong:
            return problem(422, "the query is not as it should be", errors=wrong)
    if operation.body is not None:
        try:
            body = operation.body.model_validate_json(await request.read() or b"{}", strict=True)
        except ValidationError as refused:
            return problem(422, "the body is not as it should be", errors=wrong_fields(refused, "body"))
    return Asked(who, dict(request.match_info), query, body, request)


async def _answered(operation: Operation, note: Note, asked: Asked) -> web.StreamResponse:
    answered = await _done(operation, note, asked)
    return answered if isinstance(answered, web.StreamResponse) else answer_of(answered)


def answer_of(answered: Answered) -> web.Response:
    text = "" if answered.body is None else answered.body.model_dump_json(by_alias=True)
    return web.Response(
        status=answered.status,
        text=text if answered.body is not None else None,
        content_type="application/json" if answered.body is not None else None,
        headers=dict(answered.headers),
    )


async def _done(operation: Operation, note: Note, asked: Asked) -> Answered | web.StreamResponse:
    """What the operation answers, which stands in the audit log where it is a deed."""
    if not operation.deed:
        return await operation.does(asked)
    named = next(iter(asked.path.values()), "")
    source = address_of(asked.request)
    deed = Deed(note, asked.key, operation.deed, of=operation.of, which=named, source=source)
    if operation.method == "GET":
        answered = await operation.does(replace(asked, noted=deed.read))
        if answered.status < 400:
            await deed.read()
        return answered
    await deed.ask(deeds.asked(asked.body, operation.shows))
    try:
        answered = await operation.does(asked)
    except Exception as problem:
        await deed.failed(getattr(problem, "http_code", 500))
        raise
    if answered.status >= 400:
        await deed.failed(answered.status)
    elif isinstance(answered, web.StreamResponse):
        await deed.done("", {})
    else:
        await deed.done(getattr(answered.body, "id", ""), answered.detail)
    return answered


def _query(request: web.Request) -> dict[str, Any]:
    """A name that comes twice is a list, which no field takes unless it says so."""
    found: dict[str, Any] = {}
    for name in request.query:
        values = request.query.getall(name)
        found[name] = values[0] if len(values) == 1 else values
    return found


def _loose(query: BaseModel, sent: Mapping[str, Any]) -> Sequence[Mapping[str, str]]:
    """Fields that are not written as JSON has them: out of a text the models would take `yes`, `5.0` and ` 5`, too."""
    read = query.model_dump(by_alias=True, exclude_unset=True)
    return [
        {"where": f"query.{name}", "reason": f"write it as `{plain}`"}
        for name, value in read.items()
        if isinstance(value, int) and sent.get(name) != (plain := json.dumps(value))
    ]
