"""What is believed to be Vonage, and what is told to whom it is not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import jwt
import pytest

from sipserver.bus.once import MemoryOnce
from sipserver.gate.gate import Gate
from sipserver.gate.settings import GateSettings
from sipserver.gate.tokens import Tokens
from sipserver.webhooks.vonage import HookAccount, VonageHooks
from tests.harness.web import Site, serving
from tools.conformance.vonage import ask, signed

APPLICATION, SECRET = "aaaaaaaa-bbbb-cccc-dddd-0123456789ab", "a signature secret that is long enough"
NCCO = [{"action": "talk", "text": "hello"}]
FIELDS = {"to": "4930123456", "from": "493098765432", "uuid": "u-1"}
BODY = json.dumps(FIELDS).encode()


class Told:
    """Satisfies `Calls`: remembers, and answers what it is told to."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, str, Mapping[str, str]]] = []
        self.events: list[tuple[str, Mapping[str, str], Mapping[str, str]]] = []
        self.instead: list[dict[str, Any]] | None = None

    def answer(self, account: str, base_url: str, fields: Mapping[str, str]) -> list[dict[str, Any]]:
        self.answers.append((account, base_url, fields))
        return NCCO

    def event(
        self, account: str, base_url: str, about: Mapping[str, str], fields: Mapping[str, str]
    ) -> list[dict[str, Any]] | None:
        self.events.append((account, about, fields))
        return self.instead


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def site(told: Told) -> AsyncIterator[Site]:
    gate = Gate(GateSettings(public_url="https://voice.example"), Tokens(bytes(32), MemoryOnce()))
    accounts = [HookAccount("main", APPLICATION, SECRET), HookAccount("mute", APPLICATION, "")]
    async with serving(VonageHooks(accounts, gate, told).routes()) as site:
        yield site


def post(site: Site, token: str, body: bytes = BODY, account: str = "main") -> Any:
    url = f"{site.url}/webhooks/vonage/{account}/answer"
    return site.client.post(url, data=body, headers={"Authorization": f"Bearer {token}"})


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_call_that_has_come_is_answered_in_ncco(site: Site, told: Told, method: str) -> None:
    status, text = await ask(
        site.client, f"{site.url}/webhooks/vonage/main/answer", APPLICATION, SECRET, FIELDS, method=method
    )
    assert (status, json.loads(text)) == (200, NCCO)
    assert told.answers == [("main", "https://voice.example", FIELDS)]


@pytest.mark.parametrize("instead", [None, NCCO])
async def test_an_event_is_told_with_what_it_is_about(
    site: Site, told: Told, instead: list[dict[str, Any]] | None
) -> None:
    told.instead = instead
    url = f"{site.url}/webhooks/vonage/main/event?refer=k-1&other=x"
    status, text = await ask(site.client, url, APPLICATION, SECRET, {"status": "busy", "uuid": "u-2"})
    assert status == (204 if instead is None else 200)
    assert text == "" or json.loads(text) == instead
    assert told.events == [("main", {"refer": "k-1"}, {"status": "busy", "uuid": "u-2"})]


BAD: dict[str, Callable[[], str]] = {
    "no token": lambda: "",
    "not a token": lambda: "nonsense",
    "another secret": lambda: signed(SECRET + "!", APPLICATION, BODY),
    "another application": lambda: signed(SECRET, "another", BODY),
    "another body": lambda: signed(SECRET, APPLICATION, BODY + b" "),
    "no hash of the body": lambda: signed(SECRET, APPLICATION, b""),
    "too old": lambda: signed(SECRET, APPLICATION, BODY, at_s=time.time() - 400),
    "from the future": lambda: signed(SECRET, APPLICATION, BODY, at_s=time.time() + 400),
    "over": lambda: signed(SECRET, APPLICATION, BODY, exp=int(time.time()) - 10),
    "when is no number": lambda: signed(SECRET, APPLICATION, BODY, iat="soon"),
    "another algorithm": lambda: jwt.encode(
        {"iat": int(time.time()), "payload_hash": hashlib.sha256(BODY).hexdigest()}, SECRET * 2, algorithm="HS512"
    ),
    "no signature": lambda: jwt.encode({"iat": int(time.time())}, "", algorithm="none"),
}
"""Signed when the test runs: in a long suite, what was signed as the file was read is too old for every reason."""


@pytest.mark.parametrize("why", BAD)
async def test_what_vonage_did_not_sign_is_refused_and_told_nothing(site: Site, told: Told, why: str) -> None:
    async with post(site, BAD[why]()) as answer:
        assert answer.status == 401
        assert await answer.json() == {"error": {"status": 401, "message": "Unauthorized"}}
    assert not told.answers


async def test_a_body_that_is_hashed_but_missing_is_refused(site: Site, told: Told) -> None:
    url = f"{site.url}/webhooks/vonage/main/answer"
    headers = {"Authorization": f"Bearer {signed(SECRET, APPLICATION, BODY)}"}
    async with site.client.get(url, params=FIELDS, headers=headers) as answer:
        assert answer.status == 401
    assert not told.answers


async def test_an_account_without_a_secret_believes_nobody(site: Site) -> None:
    """Not even a token that was signed with nothing."""
    claims = signed(SECRET, APPLICATION, BODY).rpartition(".")[0]
    digest = hmac.new(b"", claims.encode(), hashlib.sha256).digest()
    token = f"{claims}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"
    async with post(site, token, account="mute") as answer:
        assert answer.status == 401


async def test_an_account_that_we_do_not_have(site: Site) -> None:
    async with post(site, signed(SECRET, APPLICATION, BODY), account="other") as answer:
        assert answer.status == 404


@pytest.mark.parametrize("body", [b"not json", b"[1]", b"[" * 20_000])
async def test_a_signed_body_that_is_no_object_is_refused(site: Site, told: Told, body: bytes) -> None:
    async with post(site, signed(SECRET, APPLICATION, body), body) as answer:
        assert answer.status == 400
    assert not told.answers


def test_without_accounts_there_are_no_paths() -> None:
    gate = Gate(GateSettings(), Tokens(bytes(32), MemoryOnce()))
    assert VonageHooks([], gate, Told()).routes() == []
