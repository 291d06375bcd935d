"""Tokens: what is read back, and what is refused."""

from __future__ import annotations

import pytest

from sipserver.bus.once import MemoryOnce
from sipserver.errors import NotAllowed
from sipserver.gate.tokens import BadToken, Claims, Tokens

SECRET = b"0123456789abcdef0123456789abcdef"


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


def tokens(clock: Clock, secret: bytes = SECRET) -> Tokens:
    return Tokens(secret, MemoryOnce(clock), lives_s=60, clock=clock)


async def test_a_token_says_what_it_was_made_for() -> None:
    made = tokens(Clock())
    claims = Claims("voice", to="demo", from_user="anna", tenant="acme", trunk="twilio", variables={"order": "42"})
    read = await made.claim(made.issue(claims), "voice")
    assert (read.to, read.from_user, read.tenant, read.trunk) == ("demo", "anna", "acme", "twilio")
    assert dict(read.variables) == {"order": "42"}
    assert read.serial


async def test_a_token_is_good_for_one_use() -> None:
    made = tokens(Clock())
    token = made.issue(Claims("twilio", to="demo"))
    await made.claim(token, "twilio")
    with pytest.raises(BadToken, match="used"):
        await made.claim(token, "twilio")


async def test_one_that_is_not_may_be_used_again() -> None:
    made = tokens(Clock())
    token = made.issue(Claims("events", tenant="acme", once=False))
    assert await made.claim(token, "events") == await made.claim(token, "events")


async def test_a_token_ends() -> None:
    clock = Clock()
    made = tokens(clock)
    token = made.issue(Claims("voice"))
    clock.now_s += 61
    with pytest.raises(BadToken, match="over"):
        await made.claim(token, "voice")


async def test_no_token_is_called_so() -> None:
    with pytest.raises(BadToken, match="a token is needed"):
        await tokens(Clock()).claim("", "voice")


@pytest.mark.parametrize("token", ["a.b.c", "eyJhbGciOiJub25lIn0.e30."])
async def test_what_is_none_of_ours_is_refused(token: str) -> None:
    with pytest.raises(BadToken, match="none of ours"):
        await tokens(Clock()).claim(token, "voice")


async def test_another_secret_or_purpose_is_refused() -> None:
    clock = Clock()
    made = tokens(clock)
    with pytest.raises(BadToken, match="none of ours"):
        await tokens(clock, SECRET[::-1]).claim(made.issue(Claims("voice")), "voice")
    with pytest.raises(NotAllowed, match="it is for voice, webrtc is needed") as refused:
        await made.claim(made.issue(Claims("voice")), "webrtc")
    assert not isinstance(refused.value, BadToken)


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 32"):
        tokens(Clock(), b"short")
