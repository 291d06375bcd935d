"""Who is let in, how often, and what they hear of it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from sipserver.api.rest.access import Access
from sipserver.api.rest.problems import RATE
from sipserver.errors import NotAllowed, TooMany, Unauthorized
from sipserver.gate.buckets import Buckets
from sipserver.tenants.keys import ApiKey, Scope

KEY = ApiKey("id", "acme", "crm", frozenset({Scope.CALLS_READ}), "digest", datetime(2026, 1, 1, tzinfo=UTC))


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def recognise(text: str) -> ApiKey | None:
    return KEY if text == "good" else None


def asking(authorization: str = "Bearer good") -> web.Request:
    headers = {"Authorization": authorization} if authorization else {}
    return make_mocked_request("GET", "/api/v1/calls", headers=headers)


async def test_a_good_key_comes_in_and_learns_what_is_left() -> None:
    access = Access(recognise, per_s=10, clock=Clock())
    request = asking()
    key = await access.admit(request, Scope.CALLS_READ)
    assert (key.id, key.tenant, key.actor) == ("id", "acme", "key:id")
    assert request[RATE] == {"RateLimit-Limit": "20", "RateLimit-Remaining": "19", "RateLimit-Reset": "1"}


@pytest.mark.parametrize("authorization", ["", "Bearer bad", "Basic good", "good", "Bearer"])
async def test_nobody_else_does(authorization: str) -> None:
    with pytest.raises(Unauthorized):
        await Access(recognise, per_s=10).admit(asking(authorization), Scope.CALLS_READ)


async def test_a_key_without_the_scope_is_told_which() -> None:
    with pytest.raises(NotAllowed, match="calls:write"):
        await Access(recognise, per_s=10).admit(asking(), Scope.CALLS_WRITE)


async def test_a_key_that_asks_too_often_waits() -> None:
    clock = Clock()
    access = Access(recognise, per_s=2, clock=clock)
    for _ in range(4):
        await access.admit(asking(), Scope.CALLS_READ)
    request = asking()
    with pytest.raises(TooMany):
        await access.admit(request, Scope.CALLS_READ)
    assert request[RATE] == {"RateLimit-Limit": "4", "RateLimit-Remaining": "0", "RateLimit-Reset": "2"}
    clock.now_s = 0.5
    await access.admit(asking(), Scope.CALLS_READ)
    with pytest.raises(TooMany):
        await access.admit(asking(), Scope.CALLS_READ)


async def test_an_address_that_guesses_is_not_asked_any_more() -> None:
    asked = []

    async def watched(text: str) -> ApiKey | None:
        asked.append(text)
        return await recognise(text)

    clock = Clock()
    access = Access(watched, per_s=10, clock=clock)
    for _ in range(10):
        with pytest.raises(Unauthorized):
            await access.admit(asking("Bearer bad"), Scope.CALLS_READ)
    request = asking("Bearer bad")
    with pytest.raises(TooMany):
        await access.admit(request, Scope.CALLS_READ)
    assert RATE not in request
    assert len(asked) == 10
    clock.now_s = 1
    await access.admit(asking(), Scope.CALLS_READ)


async def test_whoever_is_refused_for_another_reason_learns_what_is_left_too() -> None:
    async def reached(_tenant: str) -> None:
        raise TooMany("the tenant asks too often")

    left = {"RateLimit-Limit": "20", "RateLimit-Remaining": "19", "RateLimit-Reset": "1"}
    request = asking()
    with pytest.raises(TooMany, match="tenant"):
        await Access(recognise, per_s=10, clock=Clock(), of_tenant=reached).admit(request, Scope.CALLS_READ)
    assert request[RATE] == left
    request = asking()
    with pytest.raises(NotAllowed):
        await Access(recognise, per_s=10, clock=Clock()).admit(request, Scope.CALLS_WRITE)
    assert request[RATE] == left


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sipserver.gate.buckets.MOST_NAMES", 2)
    buckets = Buckets(1, 2, Clock())
    for name in "abc":
        buckets.take(name)
    assert buckets.left("a") == 2, "forgotten, so full"
    assert buckets.left("c") == 1
