"""What is believed to be Twilio, behind proxies too, and what is told to whom it is not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
from twilio.request_validator import RequestValidator

from sipserver.bus.once import MemoryOnce
from sipserver.gate.gate import Gate
from sipserver.gate.settings import GateSettings
from sipserver.gate.tokens import Tokens
from sipserver.webhooks.twilio import SIGNATURE, HookAccount, TwilioHooks
from tests.harness.web import Site, serving

ACCOUNT, TOKEN = "AC" + "0123456789abcdef" * 2, "the auth token of the account"
FIELDS = {"AccountSid": ACCOUNT, "CallSid": "CA1", "From": "+4930999", "To": "+4930123456", "DialCallStatus": "busy"}
PUBLIC = "https://voice.example"
WORDS = ("voice", "status", "dialled")


class Told:
    """Satisfies `Calls`: remembers, and answers what no caller would mistake."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, Mapping[str, str]]] = []

    def voice(self, account: str, base_url: str, fields: Mapping[str, str]) -> str:
        self.told.append(("voice", base_url, fields))
        return "<Response>voice</Response>"

    def dialled(self, account: str, base_url: str, about: Mapping[str, str], fields: Mapping[str, str]) -> str:
        self.told.append(("dialled", base_url, about))
        return "<Response>dialled</Response>"

    def status(self, account: str, about: Mapping[str, str], fields: Mapping[str, str]) -> None:
        self.told.append(("status", "", about))


@asynccontextmanager
async def site_of(told: Told, public_url: str = PUBLIC) -> AsyncIterator[Site]:
    gate = Gate(GateSettings(public_url=public_url), Tokens(bytes(32), MemoryOnce()))
    accounts = [HookAccount("main", ACCOUNT, TOKEN), HookAccount("mute", ACCOUNT, "")]
    async with serving(TwilioHooks(accounts, gate, told).routes()) as site:
        yield site


async def asked(
    site: Site,
    word: str,
    *,
    signed: str = PUBLIC,
    token: str = TOKEN,
    account: str = "main",
    fields: Mapping[str, str] = FIELDS,
    sent: Mapping[str, str] = FIELDS,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """signed: the address, without the path, and fields: what the signature is for; sent: what comes."""
    path = f"/webhooks/twilio/{account}/{word}?refer=k-1%2Bx&other=y"
    signature = RequestValidator(token).compute_signature(f"{signed}{path}", dict(fields))
    said = {SIGNATURE: signature, **(headers or {})}
    async with site.client.post(f"{site.url}{path}", data=dict(sent), headers=said) as answer:
        return answer.status, await answer.text()


@pytest.mark.parametrize("word", WORDS)
async def test_what_twilio_signed_for_our_public_address_is_told(word: str) -> None:
    told = Told()
    async with site_of(told) as site:
        status, text = await asked(site, word)
    assert status == (204 if word == "status" else 200)
    assert text == ("" if word == "status" else f"<Response>{word}</Response>")
    ((kind, base_url, about),) = told.told
    assert kind == word
    assert base_url == ("" if word == "status" else PUBLIC)
    assert about == (FIELDS if word == "voice" else {"refer": "k-1+x"})


async def test_behind_a_proxy_of_this_machine_the_address_is_what_it_was_asked_by() -> None:
    told = Told()
    async with site_of(told, public_url="") as site:
        host = site.url.partition("://")[2]
        assert (await asked(site, "voice", signed=f"https://{host}", headers={"X-Forwarded-Proto": "https"}))[0] == 200
        assert (await asked(site, "voice", signed=f"http://{host}"))[0] == 200
        assert (await asked(site, "voice", signed=f"https://{host}"))[0] == 403
        named = {"Host": "voice.example", "X-Forwarded-Proto": "https"}
        assert (await asked(site, "voice", headers=named))[0] == 200
    assert [base_url for _, base_url, _ in told.told] == [f"https://{host}", f"http://{host}", PUBLIC]


@pytest.mark.parametrize("port", [":443", ""])
async def test_a_port_that_is_usual_may_stand_in_the_address(port: str) -> None:
    told = Told()
    async with site_of(told) as site:
        assert (await asked(site, "voice", signed=f"{PUBLIC}{port}"))[0] == 200


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("wrong", ["token", "address", "a field", "another field", "account", "mute", "unsigned"])
async def test_what_is_not_signed_so_is_told_to_nobody(word: str, wrong: str) -> None:
    told = Told()
    async with site_of(told) as site:
        match wrong:
            case "token":
                status, text = await asked(site, word, token=TOKEN + "!")
            case "address":
                status, text = await asked(site, word, signed="https://elsewhere.example")
            case "a field":
                status, text = await asked(site, word, sent={**FIELDS, "From": "+1"})
            case "another field":
                status, text = await asked(site, word, sent={**FIELDS, "CallStatus": "completed"})
            case "account":
                other = {**FIELDS, "AccountSid": "AC" + "f" * 32}
                status, text = await asked(site, word, fields=other, sent=other)
            case "mute":
                status, text = await asked(site, word, account="mute", token="")
            case _:
                status, text = await asked(site, word, headers={SIGNATURE: ""})
    assert status == 403
    assert "Response" not in text
    assert not told.told


async def test_an_account_that_is_not_ours() -> None:
    told = Told()
    async with site_of(told) as site:
        assert (await asked(site, "voice", account="other"))[0] == 404
    assert not told.told
