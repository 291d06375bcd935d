"""What the REST API answers when it says no: problem documents (RFC 9457), one shape for every reason.

Owns the middleware that makes them of exceptions. A mistake of ours tells the log, not the client.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import ValidationError

from sipserver.errors import RemoteError, SipServerError, Unauthorized
from sipserver.gate.requests import CHALLENGE
from sipserver.log import logger
from sipserver.store.database import is_trouble

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER_S = "2"
LATER_S = 3600
"""For what will not be better soon, such as a limit of the day."""

NOTHING_HERE = "there is nothing at this path: no operation has it, or what stands for an id is none"
RATE = "rate"
"""Key of a request: headers that say what is left of its rate, for every answer to it."""

_log = logger("api")


def problem(status: int, detail: str = "", headers: Mapping[str, str] | None = None, **more: Any) -> web.Response:
    """detail: what this request did wrong, and what to do. more: further members, such as `errors`."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    if detail:
        body["detail"] = detail
    return web.json_response({**body, **more}, status=status, headers=headers, content_type=CONTENT_TYPE)


def wrong_fields(refused: ValidationError, where: str) -> Sequence[Mapping[str, str]]:
    """Which fields are wrong and why, without what was sent. where: `body` or `query`."""
    return [
        {"where": ".".join([where, *map(str, error["loc"])]), "reason": error["msg"]}
        for error in refused.errors(include_input=False, include_context=False, include_url=False)
    ]


@web.middleware
async def as_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    response = await _answered(request, handler)
    if not response.prepared:
        response.headers.update(request.get(RATE, {}))
    return response


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPMethodNotAllowed as refusal:
        allowed = ", ".join(sorted(refusal.allowed_methods))
        return problem(405, f"{request.method} is not allowed here", {"Allow": allowed})
    except web.HTTPException as refusal:
        return problem(refusal.status, NOTHING_HERE if refusal.status == 404 else refusal.reason)
    except SipServerError as refusal:
        return problem(refusal.http_code, _text(refusal), _headers(refusal))
    except Exception as broken:
        if is_trouble(broken):
            _log.warning("the database does not answer a request", error=type(broken).__name__)
            return problem(503, "the records cannot be read now; calls go on", {"Retry-After": RETRY_AFTER_S})
        _log.exception("a request failed", path=request.path, method=request.method)
        return problem(500, "internal error")


def _text(refusal: SipServerError) -> str:
    return refusal.text if isinstance(refusal, RemoteError) else str(refusal)


def _headers(refusal: SipServerError) -> dict[str, str] | None:
    if isinstance(refusal, Unauthorized):
        return dict(CHALLENGE)
    if refusal.http_code == 429:
        return {"Retry-After": str(getattr(refusal, "retry_after_s", 0) or LATER_S)}
    return {"Retry-After": RETRY_AFTER_S} if refusal.retry else None
