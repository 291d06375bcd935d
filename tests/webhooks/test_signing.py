"""Signatures as the package of the specification checks them."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta, timezone

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from sipserver.webhooks import signing


def test_a_receiver_believes_the_signature_and_nothing_else() -> None:
    secret = signing.new_secret()
    headers = dict(signing.headers("msg_1", datetime.now(UTC), '{"a":1}', [secret]))
    assert Webhook(secret).verify('{"a":1}', headers) == {"a": 1}
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify('{"a":2}', headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify('{"a":1}', {**headers, "webhook-id": "msg_2"})
    with pytest.raises(WebhookVerificationError):
        Webhook(signing.new_secret()).verify('{"a":1}', headers)


def test_what_is_old_is_refused_by_the_receiver() -> None:
    secret = signing.new_secret()
    old = dict(signing.headers("msg_1", datetime.now(UTC) - timedelta(minutes=6), "{}", [secret]))
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify("{}", old)


def test_two_secrets_sign_side_by_side() -> None:
    new, old = signing.new_secret(), signing.new_secret()
    headers = dict(signing.headers("msg_1", datetime.now(UTC), "{}", [new, old]))
    assert headers["webhook-signature"].count(" ") == 1
    for secret in (new, old):
        assert Webhook(secret).verify("{}", headers) == {}


def test_the_moment_may_be_of_any_time_zone() -> None:
    secret = signing.new_secret()
    here = datetime.now(timezone(timedelta(hours=9)))
    assert Webhook(secret).verify("{}", dict(signing.headers("msg_1", here, "{}", [secret]))) == {}


def test_the_specifications_own_example() -> None:
    """Source: README of standard-webhooks/libraries, the values that all of them test."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    at = datetime.fromtimestamp(1614265330, UTC)
    headers = signing.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", at, '{"test": 2432232314}', [secret])
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_secrets_have_the_length_that_the_specification_wants() -> None:
    one, other = signing.new_secret(), signing.new_secret()
    assert one != other
    assert one.startswith("whsec_")
    assert 24 <= len(base64.b64decode(one.removeprefix("whsec_"))) <= 64
