"""One call of Twilio: what its stream and its REST API are told. `carrier_line` knows what becomes of the call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sipserver.streams import twilio_messages as messages
from sipserver.streams import twiml
from sipserver.streams.carrier_line import CarrierLine
from sipserver.streams.contract import WireFormat
from sipserver.streams.settings import TwilioAccount

RING_S = 60


class Rest(Protocol):
    """What a call needs of Twilio's REST API, as `twilio_rest.TwilioRest` gives it."""

    async def hang_up(self, call_sid: str) -> None: ...

    async def do(self, call_sid: str, twiml: str) -> None: ...


class TwilioLine(CarrierLine):
    """Satisfies `contract.Line`. Loop thread.

    call_id: the CallSid. rest: None: we have no auth token, so that nothing but the stream is ours. shown: the number
    that is shown to whom the caller is transferred. way_back: the TwiML that brings the call to us again. stream_sid:
    of the stream that runs.
    """

    wire: WireFormat = "mulaw8"

    def __init__(
        self,
        account: TwilioAccount,
        key: str,
        call_id: str,
        rest: Rest | None,
        *,
        base_url: str,
        shown: str,
        way_back: Callable[[TwilioLine], str],
    ) -> None:
        super().__init__(account, key, call_id, base_url)
        self._rest, self._shown, self._way_back = rest, shown, way_back
        self.stream_sid = self._before = self._after = ""

    @property
    def can_refer(self) -> bool:
        return self._rest is not None and bool(self.base_url)

    def play(self, payload: bytes) -> None:
        """See `CarrierLine.play`."""
        if self._connection is not None:
            self._connection.send(f"{self._before}{messages.base64_of(payload)}{self._after}", droppable=True)

    def mark(self, name: str) -> None:
        self._mark(name)
        self._say(f"mark {name}", messages.mark(self.stream_sid, name))

    def clear(self) -> None:
        """Twilio returns the marks of what it throws away."""
        self._throw_away()
        self._say("clear", messages.clear(self.stream_sid))

    async def press(self, digits: str, duration_ms: int) -> bool:
        """Media Streams carry no digits towards the caller: tones do."""
        return False

    def begins(self, stream_sid: str) -> None:
        """A stream of this name runs for the call from now on."""
        self.stream_sid = stream_sid
        self._before, self._after = messages.media_maker(stream_sid)

    async def _send_away(self, to_uri: str) -> None:
        url = f"{self.base_url}/webhooks/twilio/{self.account.name}"
        words = twiml.dial(
            to_uri,
            shown=self._shown,
            action_url=f"{url}/dialled?refer={self.key}",
            told_url=f"{url}/status?refer={self.key}",
            ring_s=RING_S,
        )
        assert self._rest is not None
        await self._rest.do(self.call_id, words)

    async def _send_back(self) -> None:
        assert self._rest is not None
        await self._rest.do(self.call_id, self._way_back(self))

    async def _end(self) -> None:
        assert self._rest is not None
        await self._rest.hang_up(self.call_id)
