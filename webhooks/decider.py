"""Webhooks whose answer a call waits for: the dialplan's step `decide`.

Owns the form of question and answer, and the signature. Refuses to try again: the caller is waiting, and the dialplan
says what happens then.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import uuid
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sipserver.errors import ProviderError
from sipserver.webhooks import signing
from sipserver.webhooks.sender import LONGEST_ANSWER, Answer, Sender
from sipserver.webhooks.settings import WebhookSettings

KIND = "call.decide"
_SECRET = re.compile(r"^whsec_[A-Za-z0-9+/]+={0,2}$")


class Question(Protocol):
    """As `calls.deciding.Question`."""

    @property
    def url(self) -> str: ...
    @property
    def data(self) -> Mapping[str, object]: ...
    @property
    def timeout_s(self) -> float: ...
    @property
    def secret_env(self) -> str: ...


class Post(Protocol):
    """As `webhooks.sender.Sender.post`."""

    def __call__(
        self, url: str, payload: bytes, headers: Mapping[str, str], *, kept: int = ...
    ) -> Awaitable[Answer]: ...


class _Body(BaseModel):
    """What the server answers; further keys are for its own use."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    outcome: str = Field(min_length=1, max_length=64)
    variables: dict[str, str | bool | int | float] = Field(default_factory=dict, max_length=50)


@dataclass(frozen=True, slots=True)
class Decision:
    outcome: str
    variables: Mapping[str, str]


class Decider:
    """Loop thread; `close` after use. post: how questions are sent, if not by a `Sender` of these settings."""

    def __init__(self, settings: WebhookSettings, *, post: Post | None = None) -> None:
        self._sender = None if post is not None else Sender(settings)
        self._post: Post = post if post is not None else self._sender.post  # type: ignore[union-attr]

    async def ask(self, question: Question) -> Decision:
        """Raises ProviderError: no answer in time, a status other than 200, an answer that cannot be used."""
        host = urlsplit(question.url).hostname or question.url
        at, message_id = datetime.now(UTC), f"msg_{uuid.uuid4().hex}"
        payload = json.dumps(
            {"type": KIND, "timestamp": at.isoformat().replace("+00:00", "Z"), "data": question.data}, default=str
        )
        headers = {"webhook-id": message_id, "webhook-timestamp": str(int(at.timestamp()))}
        if question.secret_env:
            headers = dict(signing.headers(message_id, at, payload, [_secret(question.secret_env, host)]))
        try:
            async with asyncio.timeout(question.timeout_s):
                answer = await self._post(question.url, payload.encode(), headers, kept=LONGEST_ANSWER)
        except TimeoutError:
            raise ProviderError(host, f"no answer within {round(question.timeout_s * 1000)} ms") from None
        return _decision(answer, host)

    async def close(self) -> None:
        if self._sender is not None:
            await self._sender.close()


def _decision(answer: Answer, host: str) -> Decision:
    if answer.status is None:
        raise ProviderError(host, answer.error)
    if answer.status != 200:
        raise ProviderError(host, f"answered {answer.status}, not 200")
    try:
        body = _Body.model_validate_json(answer.body)
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the answer"
        wrong = f'answered what is no {{"outcome": ..., "variables": ...}}: {where}: {first["msg"]}'
        raise ProviderError(host, wrong) from None
    return Decision(body.outcome, {name: _text(value) for name, value in body.variables.items()})


def _text(value: Any) -> str:
    """As YAML and JSON write it: true and false."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _secret(variable: str, host: str) -> str:
    secret = os.environ.get(variable, "")
    if not _SECRET.match(secret):
        raise ProviderError(host, f"the environment variable {variable} has no secret of the form whsec_... (base64)")
    return secret
