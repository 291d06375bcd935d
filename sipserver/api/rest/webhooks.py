"""Webhooks by REST: endpoints, what was delivered, what could not be, and once more.

Owns that a tenant's key reaches this tenant's endpoints alone. Refuses to know how deliveries happen
(`webhooks.outgoing`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

from sipserver.api.rest import webhook_models as models
from sipserver.api.rest.models import aware
from sipserver.api.rest.operations import Answered, Asked, Operation
from sipserver.errors import CallerError
from sipserver.tenants.keys import Scope


class EndpointBook(Protocol):
    """As `webhooks.endpoints.Endpoints`."""

    async def create(self, tenant: str, url: str, kinds: Sequence[str] = ()) -> Any: ...
    async def get(self, endpoint_id: str, *, tenant: str | None = None) -> Any: ...
    async def list(self, tenant: str | None = None) -> Sequence[Any]: ...
    async def change(
        self, endpoint_id: str, *, tenant: str | None = None, url: str | None = None, kinds: Sequence[str] | None = None
    ) -> Any: ...
    async def enable(self, endpoint_id: str, *, tenant: str | None = None) -> Any: ...
    async def disable(self, endpoint_id: str, reason: str, *, tenant: str | None = None) -> Any: ...
    async def rotate(self, endpoint_id: str, *, tenant: str | None = None) -> Any: ...
    async def delete(self, endpoint_id: str, *, tenant: str | None = None) -> None: ...


class Sending(Protocol):
    """As `webhooks.outgoing.Outgoing`."""

    @property
    def endpoints(self) -> EndpointBook: ...
    async def test(self, endpoint_id: str, *, tenant: str | None = None) -> Any: ...
    async def deliveries(
        self, endpoint_id: str, *, tenant: str | None = None, limit: int = 100, before: int | None = None
    ) -> Sequence[Any]: ...
    async def dead(
        self, endpoint_id: str, *, tenant: str | None = None, limit: int = 100, after: int = 0
    ) -> Sequence[Any]: ...
    async def waiting(self, endpoint_id: str, *, tenant: str | None = None) -> int: ...
    async def replay(self, message_id: str, *, tenant: str | None = None) -> None: ...
    async def replay_since(self, endpoint_id: str, since: datetime, *, tenant: str | None = None) -> int: ...


class WebhookOperations:
    """Loop thread."""

    def __init__(self, sending: Sending) -> None:
        self._sending = sending

    def operations(self) -> Sequence[Operation]:
        read, write, one = Scope.WEBHOOKS_READ, Scope.WEBHOOKS_WRITE, "/webhooks/{endpoint}"
        return [
            Operation(
                "createWebhook",
                "POST",
                "/webhooks",
                write,
                self._create,
                "Have events sent to a server of yours",
                "The answer has the secret that signs them.",
                body=models.CreateWebhook,
                answer=models.WebhookWithSecret,
                told_once="secret",
                status=201,
                refusals=(400,),
                deed="webhook.created",
                of="webhook",
                shows=("url", "kinds"),
            ),
            Operation("listWebhooks", "GET", "/webhooks", read, self._list, "List webhooks", answer=models.Webhooks),
            Operation("getWebhook", "GET", one, read, self._get, "Look at a webhook", answer=models.Webhook),
            Operation(
                "changeWebhook",
                "PATCH",
                one,
                write,
                self._change,
                "Change where it goes, what it hears, or whether it is on",
                "What waits for one that is switched off becomes dead letters.",
                body=models.ChangeWebhook,
                answer=models.Webhook,
                refusals=(400,),
                deed="webhook.changed",
                of="webhook",
                shows=("url", "kinds", "enabled"),
            ),
            Operation(
                "deleteWebhook",
                "DELETE",
                one,
                write,
                self._delete,
                "Delete a webhook",
                "With what waits for it and what was delivered.",
                status=204,
                deed="webhook.deleted",
                of="webhook",
            ),
            Operation(
                "rotateSecret",
                "POST",
                f"{one}/rotate",
                write,
                self._rotate,
                "Make a new secret",
                "The old one signs as well for 24 hours.",
                answer=models.WebhookWithSecret,
                told_once="secret",
                deed="webhook.rotated",
                of="webhook",
            ),
            Operation(
                "testWebhook",
                "POST",
                f"{one}/test",
                write,
                self._test,
                "Send a `webhook.test` now",
                answer=models.Delivery,
                deed="webhook.tested",
                of="webhook",
            ),
            Operation(
                "listDeliveries",
                "GET",
                f"{one}/deliveries",
                read,
                self._deliveries,
                "List attempts, the newest first",
                query=models.DeliveriesAsked,
                answer=models.Deliveries,
            ),
            Operation(
                "listDeadLetters",
                "GET",
                f"{one}/dead",
                read,
                self._dead,
                "List what could not be delivered",
                query=models.DeadAsked,
                answer=models.DeadLetters,
            ),
            Operation(
                "replayDeadLetters",
                "POST",
                f"{one}/replay",
                write,
                self._replay,
                "Try dead letters again",
                body=models.Replay,
                answer=models.Replayed,
                status=202,
                refusals=(400,),
                deed="webhook.replayed",
                of="webhook",
                shows=("message", "since"),
            ),
        ]

    async def _create(self, asked: Asked) -> Answered:
        wanted: models.CreateWebhook = asked.body
        row = await self._sending.endpoints.create(asked.key.tenant, wanted.url, wanted.kinds)
        return Answered(models.WebhookWithSecret.of(row), 201, {"Location": f"/api/v1/webhooks/{row.id}"})

    async def _list(self, asked: Asked) -> Answered:
        rows = await self._sending.endpoints.list(asked.key.tenant)
        return Answered(models.Webhooks(webhooks=[models.Webhook.of(row) for row in rows]))

    async def _get(self, asked: Asked) -> Answered:
        return Answered(models.Webhook.of(await self._sending.endpoints.get(_id(asked), tenant=asked.key.tenant)))

    async def _change(self, asked: Asked) -> Answered:
        wanted: models.ChangeWebhook = asked.body
        book, tenant = self._sending.endpoints, asked.key.tenant
        row = await book.change(_id(asked), tenant=tenant, url=wanted.url, kinds=wanted.kinds)
        if wanted.enabled is True:
            row = await book.enable(_id(asked), tenant=tenant)
        elif wanted.enabled is False:
            row = await book.disable(_id(asked), f"switched off by {asked.key.called}", tenant=tenant)
        return Answered(models.Webhook.of(row))

    async def _delete(self, asked: Asked) -> Answered:
        await self._sending.endpoints.delete(_id(asked), tenant=asked.key.tenant)
        return Answered(None, 204)

    async def _rotate(self, asked: Asked) -> Answered:
        row = await self._sending.endpoints.rotate(_id(asked), tenant=asked.key.tenant)
        return Answered(models.WebhookWithSecret.of(row))

    async def _test(self, asked: Asked) -> Answered:
        return Answered(models.Delivery.of(await self._sending.test(_id(asked), tenant=asked.key.tenant)))

    async def _deliveries(self, asked: Asked) -> Answered:
        wanted: models.DeliveriesAsked = asked.query
        rows = await self._sending.deliveries(
            _id(asked), tenant=asked.key.tenant, limit=wanted.limit, before=wanted.before
        )
        waiting = await self._sending.waiting(_id(asked), tenant=asked.key.tenant)
        return Answered(models.Deliveries(deliveries=[models.Delivery.of(row) for row in rows], waiting=waiting))

    async def _dead(self, asked: Asked) -> Answered:
        wanted: models.DeadAsked = asked.query
        rows = await self._sending.dead(_id(asked), tenant=asked.key.tenant, limit=wanted.limit, after=wanted.after)
        return Answered(models.DeadLetters(letters=[models.DeadLetter.of(row) for row in rows]))

    async def _replay(self, asked: Asked) -> Answered:
        wanted: models.Replay = asked.body
        await self._sending.endpoints.get(_id(asked), tenant=asked.key.tenant)
        if (wanted.message is None) is (wanted.since is None):
            raise CallerError("say either `message`, the id of one, or `since`, for all from then on")
        if wanted.message is not None:
            await self._sending.replay(wanted.message, tenant=asked.key.tenant)
            return Answered(models.Replayed(count=1), 202)
        since = aware(wanted.since)
        assert since is not None
        count = await self._sending.replay_since(_id(asked), since, tenant=asked.key.tenant)
        return Answered(models.Replayed(count=count), 202)


def _id(asked: Asked) -> str:
    return asked.path["endpoint"]
