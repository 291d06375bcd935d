from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from sipserver.errors import SettingsError
from sipserver.trunks import secrets
from sipserver.trunks.settings import Registration, TrunkSettings
from sipserver.trunks.state import Registered, TrunkState, first_state, pause_s
from tests.trunks.make import trunk


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"host": "", "register": {"user": "x"}, "sources": ["10.0.0.0/8"]}, "register needs a registrar"),
        ({"registrar": "r.example", "register": {}}, "register needs a user"),
        ({"number_format": "national"}, "national needs a country"),
        ({"host": ""}, "sources, users or a host"),
        ({"allow": ["49*x"]}, "allow"),
        ({"host": "a b"}, "host"),
        ({"host": "a:123456"}, "host"),
    ],
)
def test_what_cannot_work_is_refused(facts: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        trunk(**facts)


def test_the_realm_is_the_domain_unless_another_is_named() -> None:
    known = {"user": "x", "password_env": "X"}
    assert trunk(host="sip.example:5070", credentials=known).realm == "sip.example"
    assert trunk(domain="acme.example", credentials=known).realm == "acme.example"
    assert trunk(credentials={**known, "realm": "asterisk"}).realm == "asterisk"
    assert trunk().realm == ""


def test_missing_passwords_are_named() -> None:
    trunks: list[TrunkSettings] = [
        trunk("a", credentials={"user": "x", "password_env": "A"}),
        trunk("b", users=[{"name": "bob", "password_env": "BOB"}, {"name": "eve", "password_env": "EVE"}]),
    ]
    secrets.check(trunks, {"A": "1", "BOB": "2", "EVE": "3"})
    texts = [str(error) for error in secrets.missing(trunks, {"A": "", "BOB": "2"})]
    assert len(texts) == 2
    assert "a: the environment variable A" in texts[0]
    assert "b: the environment variable EVE with eve's password" in texts[1]
    with pytest.raises(SettingsError, match="trunks: a: "):
        secrets.check(trunks, {})


def test_pauses_double_and_end_somewhere() -> None:
    register = Registration(user="x", retry_s=5, retry_most_s=60)
    assert [pause_s(register, failures, lambda: 1.0) for failures in (1, 2, 3, 4, 5, 1000)] == [5, 10, 20, 40, 60, 60]
    assert pause_s(register, 1, lambda: 0.0) == 3.75


def test_a_state_in_a_word() -> None:
    def word(registration: Registered, reachable: bool | None) -> tuple[str, bool]:
        state = TrunkState("x", registration, reachable)
        return state.word, state.up

    assert word(Registered.NOT_NEEDED, None) == ("up", True)
    assert word(Registered.NOT_NEEDED, False) == ("unreachable", False)
    assert word(Registered.REGISTERED, True) == ("registered", True)
    assert word(Registered.REGISTERED, False) == ("unreachable", False)
    assert word(Registered.FAILED, False) == ("failed", False)
    assert word(Registered.UNREGISTERED, None) == ("unregistered", False)
    assert first_state(trunk(), 1.0).plain()["state"] == "up"
