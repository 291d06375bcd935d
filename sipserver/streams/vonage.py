"""Vonage's calls: where their WebSockets connect, and what their webhooks tell about calls.

Owns who is let in (a WebSocket shows the one-time token of our NCCO), which calls of Vonage are legs of ours, and what
an event means for each. Refuses to know the messages' letters (`vonage_messages`), time (`leg`) and signatures
(`webhooks.vonage`). Satisfies `webhooks.vonage.Calls`.

A call is answered when its WebSocket begins. The WebSocket is the last action of our NCCO, so that closing it ends the
call; when no event says so within HANG_UP_S, we ask the REST API.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from sipserver.errors import BadPayload, CarrierError, NotAllowed
from sipserver.events import LegDisconnected
from sipserver.gate.connection import Connection
from sipserver.gate.tokens import Claims
from sipserver.streams import vonage_messages as messages
from sipserver.streams.carrier_server import CarrierServer, first_of, offer_of
from sipserver.streams.doorway import Doorway
from sipserver.streams.leg import StreamLeg
from sipserver.streams.settings import VonageAccount
from sipserver.streams.vonage_line import VonageLine
from sipserver.streams.vonage_messages import Ncco
from sipserver.streams.vonage_rest import VonageRest

HANG_UP_S = 5.0
MOST_ENDED = 1000
"""Calls that we ended and whose `completed` we wait for; beyond it the oldest are not watched any more."""


class VonageServer(CarrierServer[VonageAccount, VonageLine, VonageRest]):
    """See `CarrierServer`. Raises SettingsError for a private key that cannot be read."""

    use = "vonage"

    def __init__(self, doorway: Doorway) -> None:
        accounts = {account.name: account for account in doorway.settings.vonage}
        super().__init__(
            doorway,
            accounts,
            {name: VonageRest(account) for name, account in accounts.items() if account.private_key},
        )
        self._keys: dict[str, str] = {}
        self._ended: dict[str, asyncio.TimerHandle] = {}

    async def close(self) -> None:
        """See `CarrierServer.close`."""
        for timer in self._ended.values():
            timer.cancel()
        await super().close()

    # --- what the webhooks ask and tell (webhooks.vonage.Calls) -------------------------------------------------------

    def answer(self, account: str, base_url: str, fields: Mapping[str, str]) -> Ncco:
        """The NCCO for a call that has come. Its token is good for one WebSocket, however often Vonage asks. Raises
        CapacityError: Vonage then asks the application's fallback URL.
        """
        self.check_room()
        claims = Claims(
            "vonage",
            to=_plus(fields.get("to", "")),
            from_user=_plus(fields.get("from", "") or fields.get("from_user", "")),
            trunk=account,
            serial=fields.get("uuid", ""),
        )
        return self.connecting(self.accounts[account], base_url, claims)

    def event(self, account: str, base_url: str, about: Mapping[str, str], fields: Mapping[str, str]) -> Ncco | None:
        """Something happened to a call. about: the query of the URL that we gave Vonage. What is answered is done next
        if the event is about a `connect` that failed; None: nothing.
        """
        status, uuid = fields.get("status", ""), fields.get("uuid", "")
        if refers := about.get("refer"):
            return self._referred(refers, account, base_url, status)
        if status == "completed" and (timer := self._ended.pop(uuid, None)) is not None:
            timer.cancel()
        line = self._lines.get(about.get("call", "") or self._keys.get(uuid, "") or uuid)
        if line is None or line.account.name != account:
            return None
        if not line.call_id and uuid:
            self.known(line, uuid)
        self._happened(line, status)
        return None

    def _happened(self, line: VonageLine, status: str) -> None:
        leg = line.leg
        if leg is None:
            return
        leg.noted("received", f"event {status}")
        if leg.offer.direction == "outbound":
            if status == "ringing":
                leg.progress(180)
                return
            code = messages.FINAL.get(status, 0)
            if code >= 300:
                leg.gone(code, f"Vonage says {status}", by_peer=True)
        if status == "completed":
            line.lost("the call is completed")

    def _referred(self, key: str, account: str, base_url: str, status: str) -> Ncco | None:
        line = self._lines.get(key)
        code = messages.reached(status)
        if line is None or line.account.name != account or not code or line.handed_over:
            return None
        if line.leg is not None:
            line.leg.noted("received", f"transfer {status}")
        line.told(code)
        if code == messages.FINAL["answered"] or line.over or not line.away:
            return None
        line.base_url = base_url
        return self.way_back(line)

    # --- tokens and actions -------------------------------------------------------------------------------------------

    def connecting(self, account: VonageAccount, base_url: str, claims: Claims, lives_s: float | None = None) -> Ncco:
        """Actions that connect a call to us. lives_s: how long they are good for; None: as all tokens."""
        url = self.socket_url(account, base_url, claims)
        return messages.websocket(url, account.rate_hz, self.gate.tokens.issue(claims, lives_s))

    def way_back(self, line: VonageLine) -> Ncco:
        """Actions that bring a call back to its leg."""
        return self.connecting(self.accounts[line.account.name], line.base_url, self.way_back_claims(line))

    def line_for(
        self, account: VonageAccount, key: str, uuid: str, base_url: str, *, host: str, shown: str
    ) -> VonageLine:
        """A new call. shown: the number that is shown to whom the caller is transferred."""
        return VonageLine(
            account,
            key,
            uuid,
            self.rests.get(account.name),
            base_url=base_url,
            host=host,
            shown=messages.digits_of(account.from_) or messages.digits_of(shown),
            way_back=self.way_back,
        )

    def known(self, line: VonageLine, uuid: str) -> None:
        """See `CarrierServer.known`."""
        super().known(line, uuid)
        self._keys[uuid] = line.key

    def _left(self, line: VonageLine, gone: LegDisconnected) -> None:
        self._keys.pop(line.call_id, None)
        if not gone.by_peer and not line.handed_over and line.call_id and line.account.name in self.rests:
            self._see_out(line)

    def _see_out(self, line: VonageLine) -> None:
        """We ended the call: unless Vonage says so soon, ask for it."""
        while len(self._ended) >= MOST_ENDED:
            self._ended.pop(next(iter(self._ended))).cancel()
        loop = asyncio.get_running_loop()
        self._ended[line.call_id] = loop.call_later(HANG_UP_S, self._still_there, line)

    def _still_there(self, line: VonageLine) -> None:
        if self._ended.pop(line.call_id, None) is not None:
            self.start(self._hang_up(line), "vonage hang-up")

    async def _hang_up(self, line: VonageLine) -> None:
        try:
            await self.rests[line.account.name].hang_up(line.call_id)
        except CarrierError as problem:
            self._log.info("a call that is over was not hung up", account=line.account.name, error=str(problem))

    # --- WebSockets ---------------------------------------------------------------------------------------------------

    async def _call(self, connection: Connection, account: VonageAccount, base_url: str) -> None:
        first, unread = await first_of(connection, messages.parse, messages.Connected)
        if first is None:
            return
        if first.rate_hz != account.rate_hz:
            raise NotAllowed(f"the sound has {first.rate_hz} Hz; {account.rate_hz} were asked for")
        claims, line = await self._claimed(first.headers.get(messages.TOKEN, ""), account)
        fresh = line is None
        if line is None:
            host, key = f"{account.name}.vonage", f"{claims.serial}{self.home}"
            given = {name: value for name, value in first.headers.items() if name != messages.TOKEN}
            line = self.line_for(account, key, claims.serial, base_url, host=host, shown=claims.to)
            self.leg_for(line, offer_of(claims, given, connection.peer, host))
        await self._carry(connection, line, claims if fresh else None, began="websocket:connected", unread=unread)

    async def _listen(self, connection: Connection, line: VonageLine, leg: StreamLeg) -> bool:
        frame = messages.frame_bytes(line.rate_hz)
        async for message in connection:
            if isinstance(message, bytes):
                if len(message) != frame:
                    leg.misread()
                if message and len(message) % 2 == 0:
                    leg.heard(message)
                continue
            try:
                self._told(messages.parse(message), line, leg)
            except BadPayload as problem:
                leg.misread()
                self._log.debug("a message that cannot be read", error=str(problem))
        return False

    def _end_of(self, line: VonageLine, connection: Connection, *, stopped: bool) -> tuple[str, bool]:
        return connection.cause or "the WebSocket was closed", not line.over

    def _told(self, message: messages.Message, line: VonageLine, leg: StreamLeg) -> None:
        match message:
            case messages.Notified(name):
                cleared = line.returned(name)
                leg.noted("received", f"notify {name}{' (cleared)' if cleared else ''}")
                leg.marked(name, cleared=cleared)
            case messages.Cleared():
                leg.noted("received", "websocket:cleared")
                for name in line.emptied():
                    leg.marked(name, cleared=True)
            case messages.Dtmf(digit):
                leg.pressed(digit)
            case messages.Unknown():
                leg.misread(unknown=True)
            case messages.Connected():  # a second one
                leg.misread()


def _plus(number: str) -> str:
    """Vonage writes numbers without `+`; dialplans have E.164. What is no number stays as it is."""
    return f"+{number}" if number and messages.digits_of(number) == number else number
