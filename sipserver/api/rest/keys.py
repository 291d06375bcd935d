"""API keys by REST: a tenant's keys make, list, rotate and end keys of the same tenant."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sipserver.api.rest import config_models as models
from sipserver.api.rest.models import aware
from sipserver.api.rest.operations import Answered, Asked, Operation
from sipserver.tenants.key_book import KeyBook
from sipserver.tenants.keys import Scope

_SECRET = {"Cache-Control": "no-store"}


class KeyOperations:
    """Loop thread."""

    def __init__(self, book: KeyBook) -> None:
        self._book = book

    def operations(self) -> Sequence[Operation]:
        write, one = Scope.KEYS_WRITE, "/keys/{key}"
        return [
            Operation(
                "listKeys",
                "GET",
                "/keys",
                Scope.KEYS_READ,
                self._list,
                "List keys, without what opens doors",
                query=models.KeysAsked,
                answer=models.Keys,
            ),
            Operation(
                "createKey",
                "POST",
                "/keys",
                write,
                self._create,
                "Make a key",
                "The answer has it, this once. It may do and lives no more than the key that asks.",
                body=models.CreateKey,
                answer=models.KeyWithText,
                told_once="key",
                status=201,
                refusals=(400, 409),
                deed="key.created",
                of="key",
                shows=("name", "scopes", "expires_at"),
            ),
            Operation(
                "deleteKey",
                "DELETE",
                one,
                write,
                self._delete,
                "End a key",
                "Also the one that asks. Servers that run refuse it within two seconds.",
                status=204,
                deed="key.revoked",
                of="key",
            ),
            Operation(
                "rotateKey",
                "POST",
                f"{one}/rotate",
                write,
                self._rotate,
                "Make a new key in the place of one",
                "The old one is good for the grace still.",
                body=models.RotateKey,
                answer=models.KeyWithText,
                told_once="key",
                status=201,
                refusals=(409,),
                deed="key.rotated",
                of="key",
                shows=("grace_s",),
            ),
        ]

    async def _list(self, asked: Asked) -> Answered:
        now, wanted = datetime.now(UTC), asked.query
        found = [key for key in await self._book.list(asked.key.tenant) if wanted.over or key.is_good(now)]
        return Answered(models.Keys(keys=[models.Key.of(key) for key in found]))

    async def _create(self, asked: Asked) -> Answered:
        wanted: models.CreateKey = asked.body
        key, text = await self._book.issue(asked.key, wanted.name, frozenset(wanted.scopes), aware(wanted.expires_at))
        return Answered(models.KeyWithText.of(key, key=text), 201, {**_SECRET, "Location": f"/api/v1/keys/{key.id}"})

    async def _delete(self, asked: Asked) -> Answered:
        await self._book.revoke(asked.path["key"], tenant=asked.key.tenant)
        return Answered(None, 204)

    async def _rotate(self, asked: Asked) -> Answered:
        grace = timedelta(seconds=asked.body.grace_s)
        key, text = await self._book.rotate(asked.key, asked.path["key"], grace)
        return Answered(models.KeyWithText.of(key, key=text), 201, _SECRET)
