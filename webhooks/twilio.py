"""What Twilio asks and tells us by HTTP: what to do with a call, answered in TwiML, and what becomes of calls.

Owns the check that it is Twilio who asks. Refuses to know streams, calls and TwiML: whoever has them says what is
answered. Source: Twilio, "Webhooks security", "Validating Signatures from Twilio".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from aiohttp import web
from twilio.request_validator import RequestValidator

from sipserver.errors import NotAllowed, NotFound
from sipserver.gate.gate import Gate
from sipserver.log import logger

SIGNATURE = "X-Twilio-Signature"
ABOUT = ("call", "refer")
"""The keys of the queries in the URLs that we give Twilio."""


@dataclass(frozen=True, slots=True)
class HookAccount:
    """auth_token: signs Twilio's requests; empty: nothing of this account is believed."""

    name: str
    account_sid: str
    auth_token: str = field(repr=False)


class Calls(Protocol):
    """Who has the calls. base_url: how Twilio reaches us. What is returned is TwiML."""

    def voice(self, account: str, base_url: str, fields: Mapping[str, str]) -> str: ...

    def dialled(self, account: str, base_url: str, about: Mapping[str, str], fields: Mapping[str, str]) -> str: ...

    def status(self, account: str, about: Mapping[str, str], fields: Mapping[str, str]) -> None: ...


class TwilioHooks:
    """`routes`. Loop thread."""

    def __init__(self, accounts: Iterable[HookAccount], gate: Gate, calls: Calls) -> None:
        self._accounts = {account.name: account for account in accounts}
        self._gate, self._calls = gate, calls
        self._log = logger("webhooks")

    def routes(self) -> list[web.RouteDef]:
        if not self._accounts:
            return []
        path = "/webhooks/twilio/{account}"
        return [
            web.post(f"{path}/voice", self._voice),
            web.post(f"{path}/dialled", self._dialled),
            web.post(f"{path}/status", self._status),
        ]

    async def _voice(self, request: web.Request) -> web.Response:
        """A call has come to one of the account's numbers."""
        account, fields = await self._asked(request)
        return _twiml(self._calls.voice(account.name, self._gate.public_url(request), fields))

    async def _dialled(self, request: web.Request) -> web.Response:
        """The action of a <Dial> of ours."""
        account, fields = await self._asked(request)
        return _twiml(self._calls.dialled(account.name, self._gate.public_url(request), _about(request), fields))

    async def _status(self, request: web.Request) -> web.Response:
        """A status callback of a call that we placed, or of one that a <Dial> of ours placed."""
        account, fields = await self._asked(request)
        self._calls.status(account.name, _about(request), fields)
        return web.Response(status=204)

    async def _asked(self, request: web.Request) -> tuple[HookAccount, Mapping[str, str]]:
        """The account and the fields of a request that Twilio signed. Raises NotFound, NotAllowed."""
        account = self._accounts.get(request.match_info["account"])
        if account is None:
            raise NotFound("no such account")
        form = await request.post()
        fields = {name: str(value) for name, value in form.items()}
        if not self._is_twilio(request, account, fields):
            self._log.warning("a webhook without Twilio's signature", account=account.name, peer=request.remote)
            raise NotAllowed("the signature is not Twilio's")
        return account, fields

    def _is_twilio(self, request: web.Request, account: HookAccount, fields: Mapping[str, str]) -> bool:
        """HMAC-SHA1 over the URL that Twilio asked for, and the sorted fields; with or without a port that is usual."""
        signature = request.headers.get(SIGNATURE, "")
        if not signature or not account.auth_token or fields.get("AccountSid") != account.account_sid:
            return False
        url = f"{self._gate.public_url(request)}{request.path_qs}"
        return bool(RequestValidator(account.auth_token).validate(url, dict(fields), signature))


def _about(request: web.Request) -> Mapping[str, str]:
    return {name: request.query[name] for name in ABOUT if name in request.query}


def _twiml(text: str) -> web.Response:
    return web.Response(text=text, content_type="application/xml")
