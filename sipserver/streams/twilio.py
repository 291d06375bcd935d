"""Twilio's calls: where their streams connect, and what their webhooks tell about calls.

Owns who is let in (a stream shows the one-time token of our TwiML), which calls of Twilio are legs of ours, and what a
webhook means for each. Refuses to know the messages' letters (`twilio_messages`), time (`leg`) and signatures
(`webhooks.twilio`). Satisfies `webhooks.twilio.Calls`.

A call is answered when its stream begins. The stream is the last verb of our TwiML, so that closing it ends the call.
"""

from __future__ import annotations

from collections.abc import Mapping

from sipserver.errors import BadPayload, NotAllowed
from sipserver.gate.close_codes import Close
from sipserver.gate.connection import Connection
from sipserver.gate.tokens import Claims
from sipserver.streams import twilio_messages as messages
from sipserver.streams import twiml
from sipserver.streams.carrier_server import CarrierServer, first_of, offer_of
from sipserver.streams.doorway import Doorway
from sipserver.streams.leg import StreamLeg
from sipserver.streams.settings import TwilioAccount
from sipserver.streams.twilio_line import TwilioLine
from sipserver.streams.twilio_rest import TwilioRest

HELPFUL = ("CallerName", "ForwardedFrom", "FromCity", "FromCountry")
"""What Twilio knows of a caller that dialplans may want: further parameters of the stream."""


class TwilioServer(CarrierServer[TwilioAccount, TwilioLine, TwilioRest]):
    """See `CarrierServer`. auth_tokens: by account; one without cannot transfer or place calls."""

    use = "twilio"
    takes = "text"

    def __init__(self, doorway: Doorway, auth_tokens: Mapping[str, str]) -> None:
        accounts = {account.name: account for account in doorway.settings.twilio}
        tokens = {name: token for name, token in auth_tokens.items() if token}
        super().__init__(doorway, accounts, {name: TwilioRest(accounts[name], token) for name, token in tokens.items()})

    # --- what the webhooks ask and tell (webhooks.twilio.Calls) -------------------------------------------------------

    def voice(self, account: str, base_url: str, fields: Mapping[str, str]) -> str:
        """TwiML for a call that has come. Its token is good for one stream, however often Twilio asks. Raises
        CapacityError: Twilio then asks the number's fallback URL.
        """
        self.check_room()
        claims = Claims(
            "twilio",
            to=fields.get("To", ""),
            from_user=fields.get("From", ""),
            trunk=account,
            serial=fields.get("CallSid", ""),
        )
        more = {name: fields[name] for name in HELPFUL if fields.get(name)}
        return self.connecting(self.accounts[account], base_url, claims, more=more)

    def status(self, account: str, about: Mapping[str, str], fields: Mapping[str, str]) -> None:
        """Something happened to a call that we placed (`call`), or to whom we had Twilio connect a caller (`refer`)."""
        status = fields.get("CallStatus", "")
        line = self._lines.get(about.get("refer", "") or about.get("call", ""))
        if line is None or line.account.name != account or line.leg is None:
            return
        leg = line.leg
        if about.get("refer"):
            leg.noted("received", f"transfer {status}")
            if status == "in-progress":
                line.told(twiml.FINAL["answered"])
            return
        leg.noted("received", f"status {status}")
        if not line.call_id:
            self.known(line, fields.get("CallSid", ""))
        if status == "ringing":
            leg.progress(180)
        elif (code := twiml.FINAL.get(status, 0)) >= 300:
            leg.gone(code, f"Twilio says {status}", by_peer=True)
        elif status == "completed":
            line.lost("the call is completed")

    def dialled(self, account: str, base_url: str, about: Mapping[str, str], fields: Mapping[str, str]) -> str:
        """Whom Twilio connected a caller to is gone, or has never come: what is done next."""
        status, line = fields.get("DialCallStatus", ""), self._lines.get(about.get("refer", ""))
        if line is None or line.account.name != account:
            return twiml.HANG_UP
        if line.leg is not None:
            line.leg.noted("received", f"transfer {status}")
        code = twiml.FINAL.get(status, 503)
        if fields.get("CallStatus") == "completed" and code >= 300:
            line.lost("the caller hung up")
            return twiml.HANG_UP
        line.told(code)
        if code < 300 or line.over or not line.away:
            return twiml.HANG_UP
        line.base_url = base_url
        return self.way_back(line)

    # --- tokens and TwiML ---------------------------------------------------------------------------------------------

    def connecting(
        self,
        account: TwilioAccount,
        base_url: str,
        claims: Claims,
        lives_s: float | None = None,
        more: Mapping[str, str] | None = None,
    ) -> str:
        """TwiML that connects a call to us. lives_s: how long it is good for; None: as all tokens."""
        url = self.socket_url(account, base_url, claims)
        return twiml.connect(url, {twiml.TOKEN: self.gate.tokens.issue(claims, lives_s), **(more or {})})

    def way_back(self, line: TwilioLine) -> str:
        """TwiML that brings a call back to its leg."""
        return self.connecting(self.accounts[line.account.name], line.base_url, self.way_back_claims(line))

    def line_for(self, account: TwilioAccount, key: str, call_id: str, base_url: str, *, shown: str) -> TwilioLine:
        """A new call. shown: the number that is shown to whom the caller is transferred."""
        rest = self.rests.get(account.name)
        return TwilioLine(account, key, call_id, rest, base_url=base_url, shown=shown, way_back=self.way_back)

    # --- streams ------------------------------------------------------------------------------------------------------

    async def _call(self, connection: Connection, account: TwilioAccount, base_url: str) -> None:
        start, unread = await first_of(connection, messages.parse, messages.Start, messages.Connected)
        if start is None:
            return
        if start.account_sid != account.account_sid:
            raise NotAllowed("the stream is of another account")
        claims, line = await self._claimed(start.parameters.get(twiml.TOKEN, ""), account)
        if start.call_sid != ((line.call_id or start.call_sid) if line else claims.serial):
            raise NotAllowed("the token is of another call")
        fresh = line is None
        if line is None:
            given = {name: value for name, value in start.parameters.items() if name != twiml.TOKEN}
            offer = offer_of(claims, given, connection.peer, f"{account.name}.twilio")
            key = f"{claims.serial}{self.home}"
            line = self.line_for(account, key, start.call_sid, base_url, shown=account.from_ or claims.to)
            self.leg_for(line, offer)
        line.begins(start.stream_sid)
        await self._carry(connection, line, claims if fresh else None, began="start", unread=unread)

    async def _listen(self, connection: Connection, line: TwilioLine, leg: StreamLeg) -> bool:
        stream_sid = line.stream_sid
        async for text in connection:
            try:
                message = messages.parse(str(text))
            except BadPayload as problem:
                leg.misread()
                self._log.debug("a message that cannot be read", error=str(problem))
                continue
            match message:
                case messages.Media() if message.stream_sid == stream_sid:
                    if message.track == "inbound":
                        leg.heard(message.payload)
                case messages.Mark() if message.stream_sid == stream_sid:
                    cleared = line.returned(message.name)
                    leg.noted("received", f"mark {message.name}{' (cleared)' if cleared else ''}")
                    leg.marked(message.name, cleared=cleared)
                case messages.Dtmf() if message.stream_sid == stream_sid:
                    leg.pressed(message.digit)
                case messages.Stop() if message.stream_sid == stream_sid:
                    leg.noted("received", "stop")
                    return True
                case messages.Unknown() | messages.Connected():
                    leg.misread(unknown=True)
                case _:  # of another stream, or a second `start`
                    leg.misread()
        return False

    def _end_of(self, line: TwilioLine, connection: Connection, *, stopped: bool) -> tuple[str, bool]:
        if stopped:
            return "Twilio ended the stream", True
        lost = "the stream was closed" if connection.code == Close.DONE else "the connection was lost"
        return connection.cause or lost, connection.by_peer or not connection.code
