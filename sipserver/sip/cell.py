"""A cell: one PJSIP endpoint, its thread, and the legs of at most `capacity` calls.

Owns the wiring between the sip thread, the media clock and the loop, and the limits of what comes in. Refuses to know
what a call does with its leg.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from sipserver.audio.playout import Playout
from sipserver.errors import CapacityError, CarrierError
from sipserver.log import logger
from sipserver.sip import facts
from sipserver.sip.admission import Admission
from sipserver.sip.endpoint import translate
from sipserver.sip.leg import SipLeg
from sipserver.sip.offer import SipOffer
from sipserver.sip.port import MediaClock, MediaLine
from sipserver.sip.settings import SipSettings
from sipserver.sip.sip_trunks import SipTrunks
from sipserver.sip.switchboard import Switchboard
from sipserver.sip.thread import SipThread
from sipserver.sip.trunk_desk import OnState, TrunkDesk
from sipserver.trunks.settings import TrunkSettings

T = TypeVar("T")
OnLeg = Callable[[SipLeg], None]

_SWITCH_S = 0.0005


class Cell:
    """Loop thread, all of it. One cell at a time in a process (a rule of pjsua2); a stopped one may be followed by
    another.

    on_leg: called on the loop with each inbound leg that was let in, still unanswered; it must not block or raise.
    goodbye_s: how long `stop` waits for peers that do not answer the BYE. capacity_hint: calls that PJSIP holds, if
    another process has counted them already (`capacity.count`). trunks: of a single server; a cell behind an edge needs
    only their rules for calls. passwords: by environment variable; None: the process's environment. on_trunk: called on
    the loop with each new state of a trunk; must not block or raise.
    """

    def __init__(
        self,
        settings: SipSettings,
        on_leg: OnLeg,
        *,
        goodbye_s: float = 2.0,
        capacity_hint: int = 0,
        trunks: Sequence[TrunkSettings] = (),
        passwords: Mapping[str, str] | None = None,
        on_trunk: OnState | None = None,
    ) -> None:
        self._goodbye_s = goodbye_s
        self._trunks = trunks
        self._passwords = os.environ if passwords is None else passwords
        self.trunks = TrunkDesk(trunks, _Sender(self), on_trunk)
        self._capacity_hint = capacity_hint
        self._settings = settings
        self._on_leg = on_leg
        self._legs: dict[int, SipLeg] = {}
        self._admission = Admission(settings.allow, 0)
        self._empty = asyncio.Event()
        self._empty.set()
        self._clock = MediaClock(self._wake)
        self._board: Switchboard | None = None
        self._thread: SipThread | None = None

    async def start(self) -> None:
        """Bind the ports, take calls, register (behind an edge: whoever starts `trunks` says when). Raises ConfigError
        when a port is taken, the range of RTP ports is too small, or a trunk cannot work.
        """
        sys.setswitchinterval(_SWITCH_S)
        trunks = SipTrunks(self._settings, self._trunks, self._passwords)
        trunks.accounts.on_registration = lambda *told: self._to_loop(self.trunks.registration, *told)
        trunks.accounts.on_probe = lambda *told: self._to_loop(self.trunks.probe_ended, *told)
        board = Switchboard(
            self._settings,
            self._admission,
            self._clock,
            self._tell,
            self._arrive,
            self._capacity_hint,
            trunks,
        )
        self._thread = SipThread(board.poll, translate)
        self._thread.every(1.0, board.supervise)
        await self._thread.start(board.open)
        self._thread.wake_by(board.wake_address)
        self._board = board
        logger("sip").info(
            "cell started",
            sip_port=self.sip_port,
            pjsip=self.pjsip_version,
            capacity=self.capacity,
            inbound_limit=self.inbound_limit,
        )
        if not self._settings.behind_edge:
            self.trunks.start()

    async def stop(self) -> None:
        """End all calls, free the ports, end the thread. Peers that do not answer the BYE are given up."""
        thread, board = self._thread, self._board
        if thread is None or board is None:
            return
        self._admission.draining = True
        await self.trunks.stop()
        self._board = None
        await thread.submit(board.end_all)
        try:
            async with asyncio.timeout(self._goodbye_s):
                await self._empty.wait()
        except TimeoutError:
            logger("sip").warning("calls did not end in time", calls=len(self._legs))
        await thread.stop(board.close)
        self._thread = None
        for serial in list(self._legs):
            self._deliver(serial, facts.Ended(0, "the cell stopped", False, None))

    def drain(self) -> None:
        """From now on refuse calls (and answer OPTIONS) with 503 and Retry-After; running calls go on."""
        self._admission.draining = True

    async def dial(
        self,
        uri: str,
        *,
        headers: Mapping[str, str] | None = None,
        from_uri: str = "",
        from_user: str = "",
        from_display: str = "",
        trunk: str = "",
        timeout_s: float = 60.0,
    ) -> SipLeg:
        """Place a call. Returns the leg as soon as the INVITE is sent: attach to it, then `await leg.answer()`. Early
        media is heard before. Without an answer the call is cancelled after timeout_s and ends with 408. from_uri: of
        From, `sip:user@host`; without it our own address with from_user. trunk: by which of the trunks; empty: none.
        A draining cell still places calls: those that run may need a further leg. Raises CapacityError, CarrierError.
        """
        thread, board = self._running()
        if len(self._legs) >= self.capacity:
            raise CapacityError(f"all {self.capacity} calls of the cell are taken")
        custom = dict(headers or {})
        sender = self._from(from_uri, from_user, from_display)
        line = MediaLine(Playout())
        serial = board.next_serial()
        offer = SipOffer.of_dial(uri, sender, "", custom, trunk)
        leg = self._leg(serial, offer, line)
        try:
            sip_call_id = await thread.submit(lambda: board.dial(serial, line, uri, custom, sender, trunk))
        except CapacityError:
            self._forget(serial)
            raise
        except Exception as error:
            self._forget(serial)
            raise CarrierError(f"the call could not be placed: {error}") from None
        leg.placed(sip_call_id)
        asyncio.get_running_loop().call_later(timeout_s, leg.give_up)
        return leg

    # --- what others may know -----------------------------------------------------------------------------------------

    @property
    def tls_port(self) -> int:
        """Where calls are taken by TLS; 0 when they are not."""
        return self._running()[1].tls_port

    @property
    def sip_port(self) -> int:
        """The port that is bound, also when the settings say 0."""
        return self._running()[1].port

    @property
    def pjsip_version(self) -> str:
        return self._running()[1].version

    @property
    def capacity(self) -> int:
        """Calls that the linked PJSIP holds at a time."""
        return self._running()[1].capacity

    @property
    def inbound_limit(self) -> int:
        return self._admission.limit

    @property
    def calls(self) -> int:
        """Legs that are not gone yet."""
        return len(self._legs)

    @property
    def calls_by_trunk(self) -> Mapping[str, int]:
        """Legs of both directions; those of no trunk under an empty name."""
        return Counter(leg.offer.trunk for leg in self._legs.values())

    @property
    def draining(self) -> bool:
        return self._admission.draining

    @property
    def refused(self) -> Mapping[str, int]:
        """Calls refused since the start, by reason: limit, draining, source, pace, ports."""
        return dict(self._admission.refused)

    @property
    def last_sip_tick_s(self) -> float | None:
        """`time.monotonic()` of the sip thread's last turn; more than a second ago means that it hangs."""
        return self._thread.last_tick_s if self._thread is not None else None

    @property
    def last_media_tick_s(self) -> float | None:
        """`time.monotonic()` of the media clock's last tick; None while it stands still because no call has media."""
        return self._clock.last_tick_s

    def take_lateness_ms(self) -> list[float]:
        """How late each media tick was, since the last call of this method; at most 10 s of ticks."""
        return self._clock.take_lateness_ms()

    # --- inside -------------------------------------------------------------------------------------------------------

    def _running(self) -> tuple[SipThread, Switchboard]:
        if self._thread is None or self._board is None:
            raise CarrierError("the cell does not run")
        return self._thread, self._board

    def _from(self, uri: str, user: str, display: str) -> str:
        if not uri and not user and not display:
            return ""
        host = self._settings.public_address or self._settings.host
        shown = display.replace("\\", "").replace('"', "")
        name = f'"{shown}" ' if shown else ""
        return f"{name}<{uri or f'sip:{user or self._settings.user}@{host}:{self.sip_port}'}>"

    def _leg(self, serial: int, offer: SipOffer, line: MediaLine) -> SipLeg:
        control = _Control(self, serial)
        leg = SipLeg(serial, offer, control, line, stalled_s=self._settings.rtp_stalled_s)
        self._legs[serial] = leg
        self._empty.clear()
        return leg

    def _forget(self, serial: int) -> None:
        self._legs.pop(serial, None)
        if not self._legs:
            self._empty.set()

    def _tell(self, serial: int, fact: facts.Fact) -> None:
        """Sip and media threads."""
        if self._thread is not None:
            self._thread.to_loop(self._deliver, serial, fact)

    def _arrive(self, serial: int, offer: SipOffer, line: MediaLine) -> None:
        """Sip thread."""
        if self._thread is not None:
            self._thread.to_loop(self._take, serial, offer, line)

    def _take(self, serial: int, offer: SipOffer, line: MediaLine) -> None:
        leg = self._leg(serial, offer, line)
        try:
            self._on_leg(leg)
        except Exception:
            logger("sip").exception("an inbound leg found no taker")
            self.command(lambda board: board.respond(serial, 500, "", {}))

    def _deliver(self, serial: int, fact: facts.Fact) -> None:
        leg = self._legs.get(serial)
        if leg is None:
            return
        leg.apply(fact)
        if isinstance(fact, facts.Ended):
            self._forget(serial)

    def _to_loop(self, function: Callable[..., object], *told: object) -> None:
        """Sip thread."""
        if self._thread is not None:
            self._thread.to_loop(function, *told)

    def _wake(self) -> None:
        """Media clock thread."""
        if self._thread is not None:
            self._thread.to_loop(self._media)

    def _media(self) -> None:
        self._clock.woken()
        for leg in tuple(self._legs.values()):
            leg.deliver()

    def wire(self, serial: int) -> None:
        """Have the sip thread connect a call's sound. For the legs' controls."""
        if self._thread is not None and self._board is not None:
            board = self._board
            self._thread.post(lambda: board.wire(serial))

    def command(self, work: Callable[[Switchboard], T]) -> asyncio.Future[T]:
        """Have the sip thread do something. For the legs' controls and the trunks' desk."""
        thread, board = self._thread, self._board
        if thread is None or board is None:
            future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
            future.set_exception(CarrierError("the cell does not run"))
            return future
        return thread.submit(lambda: work(board))


class _Sender:
    """How the desk of the trunks reaches their accounts."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell

    def register(self, trunk: str) -> Awaitable[None]:
        return self._cell.command(lambda board: board.register(trunk))

    def unregister(self, trunk: str) -> Awaitable[bool]:
        return self._cell.command(lambda board: board.unregister(trunk))

    def probe(self, trunk: str) -> Awaitable[None]:
        return self._cell.command(lambda board: board.probe(trunk))


class _Control:
    """How one leg reaches its call."""

    def __init__(self, cell: Cell, serial: int) -> None:
        self._cell = cell
        self._serial = serial

    def respond(self, code: int, reason: str, headers: Mapping[str, str]) -> Awaitable[None]:
        return self._cell.command(lambda board: board.respond(self._serial, code, reason, headers))

    def end(self, code: int) -> Awaitable[None]:
        return self._cell.command(lambda board: board.end(self._serial, code))

    def wire(self) -> None:
        self._cell.wire(self._serial)

    def refer(self, uri: str, replaced: int | None) -> Awaitable[None]:
        return self._cell.command(lambda board: board.refer(self._serial, uri, replaced))

    def press(self, keys: str, duration_ms: int) -> Awaitable[None]:
        return self._cell.command(lambda board: board.press(self._serial, keys, duration_ms))
