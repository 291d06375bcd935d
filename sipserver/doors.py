"""The doors by which calls come over HTTP: what carriers and clients ask, and the streams that follow.

Satisfied from the settings; gives the routes that the HTTP server answers, and the legs that come to the exchange. Owns
what the doors share: the gate, its tokens, the clock of the streams. Refuses to know protocols.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Sequence

from aiohttp import web

from sipserver.api.phone import Phone
from sipserver.api.showing import shown
from sipserver.audio.clock import LegClock
from sipserver.calls.registry import Arrival
from sipserver.events import Stamped
from sipserver.exchange import Exchange
from sipserver.gate.gate import Gate
from sipserver.gate.tokens import Claims, Once, Tokens, secret_of
from sipserver.settings import Settings
from sipserver.streams.doorway import Doorway
from sipserver.streams.leg import StreamLeg
from sipserver.streams.twilio import TwilioServer
from sipserver.streams.twilio_outbound import TwilioOutbound
from sipserver.streams.voice import VoiceServer
from sipserver.streams.vonage import VonageServer
from sipserver.streams.vonage_outbound import VonageOutbound
from sipserver.webhooks import vonage as vonage_hooks
from sipserver.webhooks.twilio import HookAccount, TwilioHooks
from sipserver.webrtc.leg import BrowserLeg
from sipserver.webrtc.server import WebRtcServer


class Doors:
    """Loop thread. `routes` at once; `open` for as long as calls may come. once: who remembers used tokens.

    home: how addresses name this process among several that share a port.

    Raises SettingsError for a secret that is too short.
    """

    def __init__(self, loaded: Settings, exchange: Exchange, *, once: Once, home: str = "") -> None:
        self._settings, self._exchange = loaded, exchange
        streams = loaded.streams
        self.tokens = Tokens(secret_of(loaded.gate), once, lives_s=loaded.gate.token_s)
        self.gate = Gate(loaded.gate, self.tokens)
        self.clock = LegClock()
        self._open = False
        auth_tokens = {account.name: os.environ.get(account.auth_token_env, "") for account in streams.twilio}
        doorway = Doorway(streams, self.gate, self.clock, self._accept, self._has_room, home)
        self._twilio = TwilioServer(doorway, auth_tokens)
        self._vonage = VonageServer(doorway)
        self._voice = VoiceServer(doorway)
        self._webrtc = WebRtcServer(loaded.webrtc, self.gate, self._accept, self._has_room_for_browsers, home=home)
        ice_servers = self._webrtc.ice_servers()
        self._phone = Phone(loaded.http, loaded.gate, self.tokens, ice_servers=ice_servers)
        self._hooks = TwilioHooks(
            (HookAccount(account.name, account.account_sid, auth_tokens[account.name]) for account in streams.twilio),
            self.gate,
            self._twilio,
        )
        exchange.carriers.carriers |= {
            name: TwilioOutbound(self._twilio, account, loaded.gate.public_url)
            for name, account in self._twilio.accounts.items()
        }
        exchange.carriers.carriers |= {
            name: VonageOutbound(self._vonage, account, loaded.gate.public_url)
            for name, account in self._vonage.accounts.items()
        }
        self._vonage_hooks = vonage_hooks.VonageHooks(
            (
                vonage_hooks.HookAccount(
                    account.name, account.application_id, os.environ.get(account.signature_secret_env, "")
                )
                for account in streams.vonage
            ),
            self.gate,
            self._vonage,
        )

    @property
    def routes(self) -> Sequence[web.RouteDef]:
        """What the HTTP server answers for us."""
        return [
            *self._hooks.routes(),
            *self._twilio.routes(),
            *self._vonage_hooks.routes(),
            *self._vonage.routes(),
            *self._voice.routes(),
            *self._webrtc.routes(),
            *self._phone.routes(),
        ]

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Take calls for the length of an `async with` block, which is within that of the exchange."""
        self._open = True
        try:
            yield
        finally:
            self._open = False
            await self._voice.close()
            await self._webrtc.close()
            await self.gate.close_all()
            await self._twilio.close()
            await self._vonage.close()

    def observe(self, stamped: Stamped) -> None:
        """Show callers what happens in their calls, those that asked for it. One of the exchange's listeners."""
        call = self._exchange.registry.calls.get(stamped.call_id)
        show = getattr(call.leg, "show", None) if call is not None else None
        if show is not None and (message := shown(stamped)) is not None:
            show(message)

    def _has_room(self) -> bool:
        return self._open and self._exchange.serving and self.clock.legs < self._settings.streams.calls

    def _has_room_for_browsers(self) -> bool:
        return self._open and self._exchange.serving

    def _accept(self, leg: StreamLeg | BrowserLeg, claims: Claims) -> None:
        offer = leg.offer
        arrival = Arrival(tenant=claims.tenant, call_id=offer.call_id or claims.call_id, variables=offer.variables)
        self._exchange.registry.accept(leg, arrival)
