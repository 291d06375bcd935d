"""How API keys look and what becomes of wrong ones."""

from __future__ import annotations

import dataclasses
import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipserver.errors import CallerError
from sipserver.tenants import keys
from sipserver.tenants.keys import ApiKey, Scope

NOW = datetime(2026, 11, 28, tzinfo=UTC)


def known(digest: str) -> ApiKey:
    return ApiKey("id", "acme", "crm", frozenset({Scope.CALLS_READ}), digest, NOW)


def test_a_key_names_itself_and_is_recognised_by_what_is_kept() -> None:
    key = keys.new_key()
    assert keys.id_of(key.text) == key.id
    assert known(key.digest).is_of(key.text)
    assert not known(key.digest).is_of(keys.new_key().text)
    secret = key.text.removeprefix(f"sips_{key.id}_")
    assert secret not in repr(known(key.digest))
    assert keys._SECRET * math.log2(62) > 128


def test_keys_differ() -> None:
    found = {keys.new_key().text for _ in range(200)}
    assert len(found) == 200


@given(st.integers(0, 48), st.sampled_from("0aZ_-é "))
def test_a_mistyped_key_is_none(at: int, letter: str) -> None:
    text = keys.new_key().text
    wrong = text[:at] + letter + text[at + 1 :]
    assert wrong == text or keys.id_of(wrong) == ""


@pytest.mark.parametrize("wrong", ["", "sips_", "Bearer x", "sips_a_b", "x" * 1000])
def test_what_is_no_key(wrong: str) -> None:
    assert keys.id_of(wrong) == ""
    assert keys.id_of(keys.new_key().text[:-1]) == ""


def test_when_a_key_is_good() -> None:
    key = known("d")
    assert key.is_good(NOW)
    later = dataclasses.replace(key, expires_at=NOW + timedelta(days=1))
    assert later.is_good(NOW)
    assert not later.is_good(NOW + timedelta(days=1))
    assert not dataclasses.replace(key, revoked_at=NOW).is_good(NOW)


def test_unknown_scopes_are_named_with_those_that_there_are() -> None:
    assert keys.scopes_of(["calls:read", "events:read"]) == {Scope.CALLS_READ, Scope.EVENTS_READ}
    with pytest.raises(CallerError, match=r"calls:delete.*calls:write"):
        keys.scopes_of(["calls:delete"])
