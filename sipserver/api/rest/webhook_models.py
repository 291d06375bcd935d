"""What the REST API takes and gives about webhooks."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from sipserver.api.rest.models import EIGHT_BYTES, Given, Limit, Moment, Taken


class CreateWebhook(Taken):
    """A server of yours that is told what happens."""

    url: str = Field(min_length=1, max_length=2000, description="https, at an address of the public internet.")
    kinds: list[str] = Field(default=[], description="Patterns such as `call.*`; none: everything.")


class ChangeWebhook(Taken):
    """What is left out stays."""

    url: str | None = Field(default=None, min_length=1, max_length=2000)
    kinds: list[str] | None = None
    enabled: bool | None = None


class Webhook(Given):
    id: str
    url: str
    kinds: list[str]
    enabled: bool
    disabled_reason: str | None = Field(description="Why it is off: 410 of your server, or somebody's doing.")
    created_at: datetime
    dropped: int = Field(description="Messages that a full queue did not take.")
    failures: int = Field(description="Attempts in a row that found your server away.")
    held_since: datetime | None = Field(description="Messages wait since then, for your server is away; null: no.")
    next_attempt_at: datetime | None = Field(description="While it is held: when one message asks again.")

    @classmethod
    def of(cls, row: Any) -> Webhook:
        return cls(
            id=row.id,
            url=row.url,
            kinds=row.kinds,
            enabled=row.disabled_at is None,
            disabled_reason=row.disabled_reason,
            created_at=row.created_at,
            dropped=row.dropped,
            failures=row.failures,
            held_since=row.held_since,
            next_attempt_at=row.held_until,
        )


class WebhookWithSecret(Webhook):
    """The only answers with the secret."""

    secret: str = Field(description="`whsec_...`, as Standard Webhooks has it.")

    @classmethod
    def of(cls, row: Any) -> WebhookWithSecret:
        return cls(**Webhook.of(row).model_dump(), secret=row.secret)


class Webhooks(Given):
    webhooks: list[Webhook]


class DeliveriesAsked(Taken):
    limit: Limit = 100
    before: int | None = Field(
        default=None, ge=0, lt=EIGHT_BYTES, description="`number` of the last one on the page before."
    )


class Delivery(Given):
    """One attempt."""

    number: int
    message: str = Field(description="The `webhook-id`.")
    at: datetime
    status: int | None = Field(description="Of HTTP; null: there was no answer.")
    took_ms: int
    error: str | None
    answer: str = Field(description="How the answer's body began.")

    @classmethod
    def of(cls, row: Any) -> Delivery:
        return cls(
            number=row.number,
            message=row.message_id,
            at=row.at,
            status=row.status,
            took_ms=row.latency_ms,
            error=row.error,
            answer=row.answer,
        )


class Deliveries(Given):
    deliveries: list[Delivery]
    waiting: int = Field(description="Messages that wait, those that rest between attempts included.")


class DeadAsked(Taken):
    limit: Limit = 100
    after: int = Field(default=0, ge=0, lt=EIGHT_BYTES, description="`number` of the last one on the page before.")


class DeadLetter(Given):
    number: int
    id: str
    kind: str
    call: str = Field(description="Of a call's event; otherwise the message's own id.")
    created_at: datetime
    attempts: int
    error: str | None

    @classmethod
    def of(cls, row: Any) -> DeadLetter:
        return cls(
            number=row.number,
            id=row.id,
            kind=row.kind,
            call=row.lane,
            created_at=row.created_at,
            attempts=row.attempts,
            error=row.error,
        )


class DeadLetters(Given):
    letters: list[DeadLetter]


class Replay(Taken):
    """One of the two."""

    message: str | None = Field(default=None, max_length=64, description="The id of one dead letter.")
    since: Moment | None = Field(default=None, description="All that were published from this moment on.")


class Replayed(Given):
    count: int
