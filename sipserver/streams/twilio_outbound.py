"""Calls that we have Twilio place: a leg from the order on, whose stream comes when somebody answers.

Owns the request and the time for which it may ring. Refuses to know who ordered the call, and what its events mean
(`twilio`). Loop thread.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from urllib.parse import quote, urlencode

from sipserver.errors import NotAllowed
from sipserver.gate.tokens import Claims
from sipserver.streams import twiml
from sipserver.streams.carrier_server import TOKEN_OVER_S
from sipserver.streams.contract import StreamOffer
from sipserver.streams.leg import StreamLeg
from sipserver.streams.settings import TwilioAccount
from sipserver.streams.twilio import TwilioServer


class TwilioOutbound:
    """Calls by one account. base_url: how Twilio reaches us (`gate.public_url`). Satisfies `carriers.Carrier`."""

    def __init__(self, server: TwilioServer, account: TwilioAccount, base_url: str) -> None:
        self._server, self._account, self._base_url = server, account, base_url

    def check(self, to: str) -> None:
        """Raises NotAllowed, with the reason, for what this account cannot call."""
        name = self._account.name
        if name not in self._server.rests:
            raise NotAllowed(f"{name} places no calls: {self._account.auth_token_env} is not set")
        if not self._base_url:
            raise NotAllowed(f"{name} places no calls: gate.public_url does not say how to reach us")
        if not twiml.number_of(to) and not to.lower().startswith(("sip:", "sips:")):
            raise NotAllowed(f"{name} calls numbers and SIP URIs alone")

    async def dial(
        self, to: str, *, from_user: str = "", timeout_s: float, headers: Mapping[str, str] | None = None
    ) -> StreamLeg:
        """Have somebody called. Returns the leg when Twilio has taken the order: attach to it, then `await
        leg.answer()`. Without an answer it ends with 408 after timeout_s. headers: given to SIP targets.

        Raises NotAllowed and CarrierError.
        """
        self.check(to)
        server, account = self._server, self._account
        key = f"{uuid.uuid4().hex}{server.home}"
        number = twiml.number_of(to)
        target = number or to
        if headers and not number:
            target += ("&" if "?" in target else "?") + urlencode(headers, quote_via=quote, safe="")
        host, shown = f"{account.name}.twilio", twiml.number_of(from_user) or account.from_
        line = server.line_for(account, key, "", self._base_url, shown=account.from_ or shown)
        to_uri = to if not number else f"sip:{number}@{host}"
        offer = StreamOffer("outbound", f"sip:{shown}@{host}", shown, to_uri, number or to, host, key, account.name)
        leg = server.leg_for(line, offer)
        claims = Claims("twilio", trunk=account.name, serial=f"{key}/0")
        order = server.rests[account.name].call(
            target,
            server.connecting(account, self._base_url, claims, lives_s=timeout_s + TOKEN_OVER_S),
            from_number=shown,
            told_url=f"{self._base_url}/webhooks/twilio/{account.name}/status?call={key}",
            ring_s=timeout_s,
        )
        return await server.placed(line, leg, order, timeout_s)
