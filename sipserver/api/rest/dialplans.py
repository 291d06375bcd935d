"""Dialplans by REST. Owns the conditions of a request (RFC 9110, section 13) and its YAML. Refuses to know versions and
files (`api.plans`)."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from aiohttp import web

from sipserver.api.plan_checks import MOST_BYTES, Checked
from sipserver.api.plans import Current, Plans, Refused
from sipserver.api.rest import config_models as models
from sipserver.api.rest.operations import Answered, Asked, Operation
from sipserver.api.rest.problems import problem
from sipserver.errors import ConfigError, NotFound
from sipserver.tenants.keys import Scope

YAML = "application/yaml"
MOST_MISTAKES = 100
_ETAG = re.compile(r'(W/)?"([^"]*)"')
_IF_MATCH = {"If-Match": "The ETag of the version that is changed; `*`: whichever."}


class DialplanOperations:
    """Loop thread."""

    def __init__(self, plans: Plans) -> None:
        self._plans = plans

    def operations(self) -> Sequence[Operation]:
        read, write, one = Scope.DIALPLANS_READ, Scope.DIALPLANS_WRITE, "/dialplans/{name}"
        return [
            Operation(
                "listDialplans", "GET", "/dialplans", read, self._list, "List dialplans", answer=models.Dialplans
            ),
            Operation(
                "validateDialplan",
                "POST",
                "/dialplans/validate",
                read,
                self._validate,
                "Say what would be said to this dialplan",
                "Nothing is changed.",
                takes=YAML,
                answer=models.Verdict,
            ),
            Operation(
                "getDialplan",
                "GET",
                one,
                read,
                self._get,
                "Read a dialplan",
                "`ETag` is what `If-Match` wants.",
                media_type=YAML,
            ),
            Operation(
                "putDialplan",
                "PUT",
                one,
                write,
                self._put,
                "Change a dialplan, or make one",
                "Calls that run go on with the one that they began with; new ones have it within seconds.",
                takes=YAML,
                answer=models.Dialplan,
                also={201: "It was made"},
                refusals=(409, 412, 428, 507),
                headers={**_IF_MATCH, "If-None-Match": "`*`: there must be none yet."},
                deed="dialplan.changed",
                of="dialplan",
            ),
            Operation(
                "deleteDialplan",
                "DELETE",
                one,
                write,
                self._delete,
                "Delete a dialplan",
                "Its history stays.",
                status=204,
                refusals=(409, 412, 428),
                headers=_IF_MATCH,
                deed="dialplan.deleted",
                of="dialplan",
            ),
            Operation(
                "listDialplanVersions",
                "GET",
                f"{one}/history",
                read,
                self._history,
                "List its versions, the newest first",
                query=models.HistoryAsked,
                answer=models.History,
            ),
            Operation(
                "getDialplanVersion",
                "GET",
                f"{one}/history/{{number}}",
                read,
                self._version,
                "Read a version",
                media_type=YAML,
            ),
            Operation(
                "rollbackDialplan",
                "POST",
                f"{one}/rollback",
                write,
                self._rollback,
                "Make a new version with the text of an old one",
                body=models.Rollback,
                answer=models.Dialplan,
                refusals=(409, 412, 428, 507),
                headers=_IF_MATCH,
                deed="dialplan.rolled_back",
                of="dialplan",
                shows=("version",),
            ),
        ]

    async def _list(self, asked: Asked) -> Answered:
        now = await self._plans.current(asked.key.tenant)
        return Answered(models.Dialplans(dialplans=[] if now is None else [models.Dialplan.of(now)]))

    async def _validate(self, asked: Asked) -> Answered | web.Response:
        text = await _text(asked.request)
        if isinstance(text, web.Response):
            return text
        found = await self._plans.check(asked.key.tenant, text)
        return Answered(_verdict(found, text))

    async def _get(self, asked: Asked) -> web.Response:
        now = await self._plans.get(asked.key.tenant, asked.path["name"])
        return _yaml(now.text, now.digest, now.number)

    async def _put(self, asked: Asked) -> Answered | web.Response:
        expects = _expects(asked.request)
        if asked.request.headers.get("If-None-Match", "").strip() == "*":
            expects = None
        elif expects is None:
            return _unconditional("`If-None-Match: *` to make one")
        text = await _text(asked.request)
        if isinstance(text, web.Response):
            return text
        name, actor = asked.path["name"], asked.key.actor
        try:
            now, made = await self._plans.put(asked.key.tenant, name, text, actor, expects=expects)
        except Refused as refused:
            return _wrong(refused.errors, text)
        headers = {"ETag": models.etag(now.digest), **({"Location": f"/api/v1/dialplans/{now.name}"} if made else {})}
        return Answered(models.Dialplan.of(now), 201 if made else 200, headers, _content(now))

    async def _delete(self, asked: Asked) -> Answered | web.Response:
        expects = _expects(asked.request)
        if expects is None:
            return _unconditional()
        await self._plans.delete(asked.key.tenant, asked.path["name"], asked.key.actor, expects)
        return Answered(None, 204)

    async def _history(self, asked: Asked) -> Answered:
        wanted: models.HistoryAsked = asked.query
        found = await self._plans.history(
            asked.key.tenant, asked.path["name"], before=wanted.before, limit=wanted.limit
        )
        return Answered(models.History(versions=[models.Version.of(head) for head in found]))

    async def _version(self, asked: Asked) -> web.Response:
        number = asked.path["number"]
        if not re.fullmatch("[0-9]{1,9}", number):
            raise NotFound("there is no such version")
        row = await self._plans.version(asked.key.tenant, asked.path["name"], int(number))
        return _yaml(row.text, row.digest, row.number)

    async def _rollback(self, asked: Asked) -> Answered | web.Response:
        expects, wanted = _expects(asked.request), asked.body
        if expects is None:
            return _unconditional()
        name, actor = asked.path["name"], asked.key.actor
        try:
            now, _ = await self._plans.rollback(asked.key.tenant, name, wanted.version, actor, expects)
        except Refused as refused:
            return _wrong(refused.errors, "")
        return Answered(models.Dialplan.of(now), 200, {"ETag": models.etag(now.digest)}, _content(now))


def _content(now: Current) -> dict[str, Any]:
    """For the audit log: which version, and what is in it."""
    return {"version": now.number, "sha256": now.digest}


def _expects(request: web.Request) -> Collection[str] | None:
    """The digests in If-Match, a weak one never counting; empty for `*`; None: there is no If-Match."""
    values = request.headers.getall("If-Match", [])
    if not values:
        return None
    if [value.strip() for value in values] == ["*"]:
        return ()
    return [tag for weak, tag in _ETAG.findall(",".join(values)) if not weak] or ["none"]


def _unconditional(more: str = "") -> web.Response:
    said = "say with `If-Match` which version you change (the `ETag` of GET)"
    return problem(428, f"{said}, or with {more}" if more else said)


async def _text(request: web.Request) -> str | web.Response:
    """The body, or why it is none."""
    found = bytearray()
    async for chunk in request.content.iter_chunked(16_384):
        found += chunk
        if len(found) > MOST_BYTES:
            return problem(413, f"a dialplan has at most {MOST_BYTES} bytes")
    try:
        return found.decode()
    except UnicodeDecodeError as refused:
        line = found.count(b"\n", 0, refused.start) + 1
        return problem(422, "the dialplan is no UTF-8 text", errors=[{"where": f"line {line}", "reason": "no UTF-8"}])


def _yaml(text: str, digest: str, number: int) -> web.Response:
    headers = {"ETag": models.etag(digest), "Dialplan-Version": str(number), "X-Content-Type-Options": "nosniff"}
    return web.Response(text=text, content_type=YAML, charset="utf-8", headers=headers)


def _verdict(found: Checked, text: str) -> models.Verdict:
    return models.Verdict(
        valid=not found.errors, errors=_mistakes(found.errors, text), warnings=_mistakes(found.warnings, text)
    )


def _mistakes(problems: Sequence[ConfigError], text: str) -> list[models.Mistake]:
    lines = text.splitlines()
    return [models.Mistake.of(each, lines) for each in problems[:MOST_MISTAKES]]


def _wrong(problems: Sequence[ConfigError], text: str) -> web.Response:
    errors = [
        {**each.model_dump(), "where": f"line {each.line or 1}{f': {each.where}' if each.where else ''}"}
        for each in _mistakes(problems, text)
    ]
    return problem(422, "the dialplan is not as it should be: nothing was changed", errors=errors)
