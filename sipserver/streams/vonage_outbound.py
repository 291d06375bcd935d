"""Calls that we have Vonage place: a leg from the order on, whose WebSocket comes when somebody answers.

Owns the request and the time for which it may ring. Refuses to know who ordered the call, and what its events mean
(`vonage`). Loop thread.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from sipserver.errors import NotAllowed
from sipserver.gate.tokens import Claims
from sipserver.streams import vonage_messages as messages
from sipserver.streams.carrier_server import TOKEN_OVER_S
from sipserver.streams.contract import StreamOffer
from sipserver.streams.leg import StreamLeg
from sipserver.streams.settings import VonageAccount
from sipserver.streams.vonage import VonageServer


class VonageOutbound:
    """Calls by one account. base_url: how Vonage reaches us (`gate.public_url`)."""

    def __init__(self, server: VonageServer, account: VonageAccount, base_url: str) -> None:
        self._server, self._account, self._base_url = server, account, base_url

    def check(self, to: str) -> None:
        """Raises NotAllowed, with the reason, for what this account cannot call."""
        if self._account.name not in self._server.rests:
            raise NotAllowed(f"{self._account.name} places no calls: it has no private_key")
        if not self._base_url:
            raise NotAllowed(f"{self._account.name} places no calls: gate.public_url does not say how to reach us")
        try:
            messages.endpoint_of(to, "")
        except ValueError as problem:
            raise NotAllowed(str(problem)) from None

    async def dial(
        self, to: str, *, from_user: str = "", timeout_s: float, headers: Mapping[str, str] | None = None
    ) -> StreamLeg:
        """Have somebody called. Returns the leg when Vonage has taken the order: attach to it, then `await
        leg.answer()`. Without an answer it ends with 408 after timeout_s. headers: Vonage gives them to SIP targets.

        Raises NotAllowed and CarrierError.
        """
        self.check(to)
        server, account = self._server, self._account
        key = f"{uuid.uuid4().hex}{server.home}"
        host = f"{account.name}.vonage"
        endpoint = messages.endpoint_of(to, host)
        if headers and endpoint["type"] == "sip":
            endpoint["headers"] = dict(headers)
        number = messages.digits_of(account.from_) or messages.digits_of(from_user)
        line = server.line_for(account, key, "", self._base_url, host=host, shown=number)
        from_uri = f"sip:{from_user or account.from_}@{host}"
        to_uri = to if endpoint["type"] == "sip" else f"sip:{to}@{host}"
        offer = StreamOffer("outbound", from_uri, from_user or account.from_, to_uri, to, host, key, account.name)
        leg = server.leg_for(line, offer)
        claims = Claims("vonage", trunk=account.name, serial=f"{key}/0")
        order = server.rests[account.name].call(
            endpoint,
            server.connecting(account, self._base_url, claims, lives_s=timeout_s + TOKEN_OVER_S),
            from_number=number,
            event_url=f"{self._base_url}/webhooks/vonage/{account.name}/event?call={key}",
            ring_s=timeout_s,
        )
        return await server.placed(line, leg, order, timeout_s)
