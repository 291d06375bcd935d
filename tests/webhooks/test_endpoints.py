"""Endpoints: what is accepted, whose they are, secrets that change while events go on."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from standardwebhooks import Webhook

from sipserver.errors import CallerError, NotFound, TooMany
from sipserver.webhooks import endpoints
from sipserver.webhooks.endpoints import BOTH_SIGN_FOR, KNOWN_S, signing_secrets
from sipserver.webhooks.outgoing import Outgoing
from tests.webhooks.conftest import Make
from tests.webhooks.rig import URL, Clock, Got, Receivers, away, event, ok


def _signed_by(got: Got, secret: str, clock: Clock) -> bool:
    """The package's own signature is among those that came. (Its `verify` looks at the real time of day.)"""
    expected = Webhook(secret).sign(got.id, clock.now, got.payload)
    assert got.headers["webhook-timestamp"] == str(int(clock.now.timestamp()))
    return expected in got.headers["webhook-signature"].split(" ")


async def test_while_a_secret_is_rotated_both_sign(hooks: Outgoing, receivers: Receivers, clock: Clock) -> None:
    before = await hooks.endpoints.create("acme", URL)
    after = await hooks.endpoints.rotate(before.id)
    assert before.secret != after.secret
    await hooks.publish([event("c1", 0)])
    await hooks.delivery.deliver_due()
    assert _signed_by(receivers.got[-1], before.secret, clock)
    assert _signed_by(receivers.got[-1], after.secret, clock)
    clock.passes(BOTH_SIGN_FOR.total_seconds())
    await hooks.publish([event("c1", 1)])
    await hooks.delivery.deliver_due()
    assert not _signed_by(receivers.got[-1], before.secret, clock)
    assert _signed_by(receivers.got[-1], after.secret, clock)
    assert " " not in receivers.got[-1].headers["webhook-signature"]


async def test_a_message_is_signed_anew_at_every_attempt(hooks: Outgoing, receivers: Receivers, clock: Clock) -> None:
    """With the secret and the moment of the attempt: an old moment would be refused, and so would a rotated secret."""
    endpoint = await hooks.endpoints.create("acme", URL)
    receivers.behave = away
    await hooks.publish([event("c1", 0)])
    await hooks.delivery.deliver_due()
    assert _signed_by(receivers.got[-1], endpoint.secret, clock)
    rotated = await hooks.endpoints.rotate(endpoint.id)
    clock.passes(days=2)
    receivers.behave = ok
    await hooks.delivery.deliver_due()
    assert _signed_by(receivers.got[-1], rotated.secret, clock)
    assert receivers.got[0].payload == receivers.got[-1].payload


async def test_a_second_rotation_leaves_two_secrets(hooks: Outgoing, clock: Clock) -> None:
    first = await hooks.endpoints.create("acme", URL)
    second = await hooks.endpoints.rotate(first.id)
    third = await hooks.endpoints.rotate(first.id)
    read = await hooks.endpoints.get(first.id)
    assert read == third
    assert signing_secrets(read, clock.now) == (third.secret, second.secret)
    assert signing_secrets(read, clock.now + timedelta(hours=25)) == (third.secret,)


async def test_secrets_are_in_no_repr(hooks: Outgoing) -> None:
    endpoint = await hooks.endpoints.create("acme", URL)
    rotated = await hooks.endpoints.rotate(endpoint.id)
    assert endpoint.secret not in repr(rotated)
    assert rotated.secret not in repr(rotated)


async def test_endpoints_are_changed_and_deleted(hooks: Outgoing, receivers: Receivers) -> None:
    endpoint = await hooks.endpoints.create("acme", f"{URL}/old", ["call.*"])
    await hooks.publish([event("c1", 0)])
    changed = await hooks.endpoints.change(endpoint.id, url=f"{URL}/new", kinds=["turn.*"])
    assert await hooks.endpoints.get(endpoint.id) == changed
    await hooks.publish([event("c1", 1), event("c1", 2, "turn.ended")])
    await hooks.delivery.deliver_due()
    assert [(got.url.rpartition("/")[2], got.seq) for got in receivers.got] == [("new", 0), ("new", 2)]
    assert await hooks.endpoints.change(endpoint.id) == changed
    await hooks.endpoints.delete(endpoint.id)
    assert await hooks.endpoints.list() == []


async def test_endpoints_of_another_tenant_are_not_found(hooks: Outgoing) -> None:
    endpoint = await hooks.endpoints.create("acme", URL)
    await hooks.endpoints.create("zenith", URL)
    book = hooks.endpoints
    for refused in (
        book.get(endpoint.id, tenant="zenith"),
        book.change(endpoint.id, tenant="zenith", kinds=["*"]),
        book.enable(endpoint.id, tenant="zenith"),
        book.disable(endpoint.id, "no", tenant="zenith"),
        book.rotate(endpoint.id, tenant="zenith"),
        book.delete(endpoint.id, tenant="zenith"),
        book.delete("we_none"),
    ):
        with pytest.raises(NotFound):
            await refused
    assert await book.list("acme") == [endpoint]
    assert len(await book.list()) == 2


async def test_what_will_not_do_is_refused(hooks: Outgoing, make: Make) -> None:
    book = hooks.endpoints
    for url in ("http://hooks.example.com/", "https://127.0.0.1/", "https://a:b@hooks.example.com/"):
        with pytest.raises(CallerError):
            await book.create("acme", url)
    for kinds in (["call ended"], ["x" * 65], ["call.*"] * 33, [""]):
        with pytest.raises(CallerError):
            await book.create("acme", URL, kinds)
    endpoint = await book.create("acme", URL)
    with pytest.raises(CallerError):
        await book.change(endpoint.id, url="https://[::1]/")
    assert await book.list() == [endpoint]
    await make(allow_private=True).endpoints.create("acme", "http://127.0.0.1:9/")


@pytest.mark.parametrize("pattern", ["nope.*", "dtmf.*", "call", "call.end"])
async def test_a_pattern_that_nothing_matches_is_named(hooks: Outgoing, pattern: str) -> None:
    endpoint = await hooks.endpoints.create("acme", URL, ["call.*", "usage.metered", "webhook.test"])
    for refused in (
        hooks.endpoints.create("acme", URL, ["call.*", pattern]),
        hooks.endpoints.change(endpoint.id, kinds=[pattern]),
    ):
        with pytest.raises(CallerError, match=rf"`{re.escape(pattern)}`.*docs/events\.md"):
            await refused
    assert await hooks.endpoints.list() == [endpoint]


async def test_one_that_was_stored_goes_on(hooks: Outgoing, receivers: Receivers) -> None:
    endpoint = await hooks.endpoints.create("acme", URL)
    await hooks._rows.change(endpoint.id, kinds=["dtmf.*", "call.*"])
    await hooks.endpoints.change(endpoint.id, url=f"{URL}/new")
    await hooks.endpoints.disable(endpoint.id, "a rest")
    await hooks.endpoints.enable(endpoint.id)
    await hooks.publish([event("c1", 0)])
    await hooks.delivery.deliver_due()
    assert receivers.seqs() == {"c1": [0]}
    assert (await hooks.endpoints.get(endpoint.id)).kinds == ["dtmf.*", "call.*"]


async def test_a_tenant_has_so_many_endpoints(hooks: Outgoing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "MOST", 2)
    for _ in range(2):
        await hooks.endpoints.create("acme", URL)
    with pytest.raises(TooMany):
        await hooks.endpoints.create("acme", URL)
    await hooks.endpoints.create("zenith", URL)


async def test_an_endpoint_that_is_made_elsewhere_is_heeded_soon(
    make: Make, receivers: Receivers, clock: Clock
) -> None:
    here, there = make(), make()
    await here.publish([event("c1", 0)])
    await there.endpoints.create("acme", URL)
    await there.publish([event("c1", 1)])
    await here.publish([event("c1", 2)])
    clock.passes(KNOWN_S)
    await here.publish([event("c1", 3)])
    await here.delivery.deliver_due()
    assert receivers.seqs() == {"c1": [1, 3]}
