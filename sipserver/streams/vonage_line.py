"""One call of Vonage: what its WebSocket and its REST API are told. `carrier_line` knows what becomes of the call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sipserver.errors import CallerError
from sipserver.gate.connection import Connection
from sipserver.streams import vonage_messages as messages
from sipserver.streams.carrier_line import CarrierLine
from sipserver.streams.contract import WireFormat
from sipserver.streams.settings import VonageAccount
from sipserver.streams.vonage_messages import Ncco

_WIRES: dict[int, WireFormat] = {8000: "l16_8", 16_000: "l16_16", 24_000: "l16_24"}
_KEYS = frozenset("0123456789*#")


class Rest(Protocol):
    """What a call needs of Vonage's REST API, as `vonage_rest.VonageRest` gives it."""

    async def hang_up(self, uuid: str) -> None: ...

    async def connect(self, uuid: str, actions: Ncco) -> None: ...

    async def press(self, uuid: str, digits: str) -> None: ...


class VonageLine(CarrierLine):
    """Satisfies `contract.Line`. Loop thread.

    call_id: the uuid. rest: None: the account has no private key, so that nothing but the WebSocket is ours. host: of
    the addresses of the caller. shown: the number that is shown to whom the caller is transferred. way_back: the
    actions that bring the call to us again.
    """

    def __init__(
        self,
        account: VonageAccount,
        key: str,
        call_id: str,
        rest: Rest | None,
        *,
        base_url: str,
        host: str,
        shown: str,
        way_back: Callable[[VonageLine], Ncco],
    ) -> None:
        super().__init__(account, key, call_id, base_url)
        self.rate_hz = account.rate_hz
        self.wire: WireFormat = _WIRES[account.rate_hz]
        self._rest, self._host, self._shown, self._way_back = rest, host, shown, way_back
        self._frame = messages.frame_bytes(account.rate_hz)
        self._rest_of_frame = bytearray()

    @property
    def can_refer(self) -> bool:
        return self._rest is not None

    def play(self, payload: bytes) -> None:
        """See `CarrierLine.play`. In messages of exactly 20 ms."""
        connection = self._connection
        if connection is None:
            return
        if len(payload) == self._frame and not self._rest_of_frame:
            connection.send(payload, droppable=True)
            return
        rest = self._rest_of_frame
        rest += payload
        while len(rest) >= self._frame:
            connection.send(bytes(rest[: self._frame]), droppable=True)
            del rest[: self._frame]

    def mark(self, name: str) -> None:
        self._mark(name)
        self._say(f"notify {name}", messages.notify(name))

    def clear(self) -> None:
        """What is asked for now and not told yet will not have been heard."""
        self._rest_of_frame.clear()
        self._throw_away()
        self._say("clear", messages.CLEAR)

    async def press(self, digits: str, duration_ms: int) -> bool:
        if self._rest is None or not self.call_id or self.away or not _KEYS.issuperset(digits):
            return False
        await self._rest.press(self.call_id, digits)
        return True

    def connected(self, connection: Connection) -> None:
        """See `CarrierLine.connected`. Half a frame of before belongs to nobody."""
        self._rest_of_frame.clear()
        super().connected(connection)

    def emptied(self) -> tuple[str, ...]:
        """Our `clear` was done: the names that were asked for before it. They may be told all the same, or not."""
        names, self._cleared = tuple(self._cleared), set()
        return names

    async def _send_away(self, to_uri: str) -> None:
        try:
            endpoint = messages.endpoint_of(to_uri, self._host)
        except ValueError as problem:
            raise CallerError(str(problem)) from problem
        event_url = f"{self.base_url}/webhooks/vonage/{self.account.name}/event?refer={self.key}"
        assert self._rest is not None
        await self._rest.connect(self.call_id, messages.away(endpoint, self._shown, event_url))

    async def _send_back(self) -> None:
        assert self._rest is not None
        await self._rest.connect(self.call_id, self._way_back(self))

    async def _end(self) -> None:
        assert self._rest is not None
        await self._rest.hang_up(self.call_id)
