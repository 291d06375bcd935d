"""What is changed stands in the audit log before it is, and what came of it after; what is read, before it is given."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from pydantic import BaseModel

from sipserver.api.rest import deeds, sealed_sound
from sipserver.api.rest.access import Access
from sipserver.api.rest.operations import Answered, Asked, Does, Operation, application
from sipserver.api.rest.webhook_models import CreateWebhook
from sipserver.errors import Conflict
from sipserver.tenants.keys import ApiKey, Scope
from sipserver.tenants.principal import Principal
from tests.fakes.once import always

KEY = ApiKey("id", "acme", "crm", frozenset(Scope), "digest", datetime(2026, 1, 1, tzinfo=UTC))
URL = "https://u:secret@hooks.example/in?key=secret"


class Log:
    """The audit log. away: nothing can be kept from the entry of this number on."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, str, dict[str, Any]]] = []
        self.away: int | None = None

    async def note(
        self, who: Principal, deed: str, subject: str, source: str, detail: Mapping[str, Any] | None = None
    ) -> int:
        number = len(self.entries) + 1
        if self.away is not None and number >= self.away:
            raise OSError("no database")
        self.entries.append((deed, subject, dict(detail or {})))
        return number


class There:
    """An API with one operation that makes something, one that deletes it and one that reads it."""

    def __init__(self) -> None:
        self.log = Log()
        self.done = 0
        self.broken: Exception | None = None
        self.answer: Answered | web.StreamResponse = Answered(CreateWebhook(url="x"), detail={"version": 3})
        self.reads: Does = self.does
        self.client: TestClient[web.Request, web.Application]

    async def does(self, asked: Asked) -> Answered | web.StreamResponse:
        self.done += 1
        if self.broken is not None:
            raise self.broken
        return self.answer

    async def _reads(self, asked: Asked) -> Answered | web.StreamResponse:
        return await self.reads(asked)

    def operations(self) -> list[Operation]:
        write, shows = Scope.WEBHOOKS_WRITE, ("url", "kinds")
        made: dict[str, Any] = {"body": CreateWebhook, "deed": "webhook.created", "of": "webhook", "shows": shows}
        gone: dict[str, Any] = {"deed": "webhook.deleted", "of": "webhook"}
        read: dict[str, Any] = {"deed": "recording.read", "of": "call"}
        return [
            Operation("create", "POST", "/webhooks", write, self.does, "", **made),
            Operation("delete", "DELETE", "/webhooks/{name}", write, self.does, "", **gone),
            Operation("read", "GET", "/calls/{name}", write, self._reads, "", **read),
        ]


@pytest.fixture
async def there() -> AsyncIterator[There]:
    async def recognise(text: str) -> ApiKey | None:
        return KEY

    made = There()
    app = application(Access(recognise, per_s=1000), made.log.note, always, made.operations())
    async with TestClient(TestServer(app), headers={"Authorization": "Bearer good"}) as made.client:
        yield made


async def test_what_is_asked_comes_first_and_says_what_it_is_about(there: There) -> None:
    async with there.client.post("/webhooks", json={"url": URL, "kinds": ["call.*"]}) as answer:
        assert answer.status == 200
    assert there.log.entries == [
        ("webhook.created.asked", "webhook", {"url": "https://hooks.example/in", "kinds": ["call.*"]}),
        (
            "webhook.created",
            "webhook",
            {"asked": 1, "url": "https://hooks.example/in", "kinds": ["call.*"], "version": 3},
        ),
    ]


async def test_what_cannot_be_noted_is_not_done(there: There) -> None:
    there.log.away = 1
    async with there.client.post("/webhooks", json={"url": URL}) as answer:
        assert answer.status == 503
    assert there.done == 0


async def test_what_was_done_is_answered_though_its_second_entry_is_missing(there: There) -> None:
    there.log.away = 2
    async with there.client.post("/webhooks", json={"url": URL}) as answer:
        assert answer.status == 200
    assert [deed for deed, _, _ in there.log.entries] == ["webhook.created.asked"]


@pytest.mark.parametrize(
    ("broken", "status"), [(Conflict("taken"), 409), (ZeroDivisionError(), 500)], ids=["refused", "broken"]
)
async def test_what_is_refused_or_breaks_is_noted_as_failed(there: There, broken: Exception, status: int) -> None:
    there.broken = broken
    async with there.client.delete("/webhooks/w1") as answer:
        assert answer.status == status
    assert there.log.entries == [
        ("webhook.deleted.asked", "webhook:w1", {}),
        ("webhook.deleted.failed", "webhook:w1", {"asked": 1, "status": status}),
    ]


async def test_an_answer_that_refuses_is_noted_as_failed(there: There) -> None:
    there.answer = web.Response(status=412)
    async with there.client.delete("/webhooks/w1") as answer:
        assert answer.status == 412
    assert there.log.entries[1] == ("webhook.deleted.failed", "webhook:w1", {"asked": 1, "status": 412})


async def test_what_cannot_be_noted_is_not_given_away(there: There) -> None:
    there.log.away = 1
    async with there.client.get("/calls/c1") as answer:
        assert answer.status == 503
    there.log.away = None
    async with there.client.get("/calls/c1") as answer:
        assert answer.status == 200
    assert there.log.entries == [("recording.read", "call:c1", {})]


# --- encrypted sound --------------------------------------------------------------------------------------------------


class Sound:
    """A `SealedFile` that is longer than what the kernels hold: a client that does not read keeps it waiting."""

    id, size, closed = "sound", 32 << 20, False

    def seek(self, offset: int) -> None:
        pass

    def read(self, count: int) -> bytes:
        return bytes(count)

    def close(self) -> None:
        self.closed = True


async def test_encrypted_sound_is_noted_before_its_first_byte(there: There) -> None:
    sound: Any = Sound()
    there.reads = lambda asked: sealed_sound.answer(asked.request, lambda: sound, "x.wav", asked.noted)
    async with there.client.get("/calls/c1") as answer:
        assert answer.status == 200
        assert there.log.entries == [("recording.read", "call:c1", {})]
        assert not sound.closed
    there.log.away = 1
    async with there.client.get("/calls/c1") as answer:
        assert answer.status == 503


class Changed(BaseModel):
    url: str | None = None
    kinds: list[str] | None = None


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ({"url": None, "kinds": None}, {"url": None, "kinds": None}),
        ({"url": "https://user:word@hooks.example.com/in?key=1"}, {"url": "https://hooks.example.com/in"}),
        ({"url": "https://[half"}, {"url": ""}),
        ({}, {}),
    ],
)
def test_of_an_address_what_may_be_a_password_is_left_out(sent: dict[str, object], shown: dict[str, object]) -> None:
    assert deeds.asked(Changed.model_validate(sent), ("url", "kinds")) == shown
