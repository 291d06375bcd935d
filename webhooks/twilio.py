"""What Twilio asks us by HTTP: what to do with a call, answered in TwiML.

Owns the check that it is Twilio who asks, and the one-time token by which the stream is known that follows. Refuses to
know streams and calls. Source: Twilio, "Webhooks security" and "TwiML <Stream>".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from aiohttp import web
from twilio.request_validator import RequestValidator
from twilio.twiml.voice_response import Connect, Stream, VoiceResponse

from sipserver.errors import NotAllowed, NotFound
from sipserver.gate.gate import Gate
from sipserver.gate.tokens import Claims
from sipserver.log import logger

SIGNATURE = "X-Twilio-Signature"
TOKEN = "token"  # noqa: S105 # nosec B105 - the name of a parameter
HELPFUL = ("CallerName", "ForwardedFrom", "FromCity", "FromCountry")
"""What Twilio knows of a caller that dialplans may want: further parameters of the stream."""


@dataclass(frozen=True, slots=True)
class HookAccount:
    """auth_token: signs Twilio's requests; empty: nothing of this account is believed."""

    name: str
    account_sid: str
    auth_token: str = field(repr=False)


class TwilioHooks:
    """`routes`. Loop thread. The URL of the stream is `gate.public_url`/ws/twilio/NAME."""

    def __init__(self, accounts: Iterable[HookAccount], gate: Gate) -> None:
        self._accounts = {account.name: account for account in accounts}
        self._gate = gate
        self._log = logger("webhooks")

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/webhooks/twilio/{account}/voice", self._voice)] if self._accounts else []

    async def _voice(self, request: web.Request) -> web.Response:
        """A call has come to one of the account's numbers."""
        account, fields = await self._asked(request)
        claims = Claims("twilio", to=fields.get("To", ""), from_user=fields.get("From", ""), trunk=account.name)
        url = f"{self._gate.public_url(request, websocket=True)}/ws/twilio/{account.name}"
        stream = Stream(url=url)
        stream.parameter(name=TOKEN, value=self._gate.tokens.issue(claims))
        for name in HELPFUL:
            if fields.get(name):
                stream.parameter(name=name, value=fields[name])
        answer = VoiceResponse()
        answer.append(Connect().append(stream))
        return web.Response(text=str(answer), content_type="application/xml")

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
