"""The cell's half on the sip thread: the endpoint, the gate, the patch bay and the living pjsua2 calls.

Holds the strong reference to each call from its first moment until DISCONNECTED and destroys it here. Sip thread only,
except for the plain values that are fixed once `open` has returned.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pjsua2 as pj

from sipserver.audio.playout import Playout
from sipserver.errors import CapacityError, CarrierError
from sipserver.log import logger
from sipserver.open_files import SELECT_FILES
from sipserver.sip import capacity, pcm, rtp_reader, targets
from sipserver.sip.admission import DRAINING, NO_FILES, NO_PORTS, PACE, SILENCE, SOURCE, Admission, Refusal
from sipserver.sip.call_sound import CallSound
from sipserver.sip.challenges import ChallengeLimit
from sipserver.sip.endpoint import SipEndpoint
from sipserver.sip.facts import Fact, Message
from sipserver.sip.handles import Pace
from sipserver.sip.memory import Tidy
from sipserver.sip.message import SipText
from sipserver.sip.methods import NEEDS_DIALOG, NO_DIALOG, NO_METHOD, OUTSIDE_DIALOGS, MethodGate
from sipserver.sip.offer import SipOffer
from sipserver.sip.patch_bay import PatchBay
from sipserver.sip.pjcall import PjCall
from sipserver.sip.port import MediaClock, MediaLine
from sipserver.sip.priority import raise_priority
from sipserver.sip.rtp_ports import RtpPorts
from sipserver.sip.settings import SipSettings
from sipserver.sip.sip_trunks import SipTrunks
from sipserver.sip.strangers import StrangersSilence

Tell = Callable[[int, Fact], None]
Arrive = Callable[[int, SipOffer, MediaLine], None]

_TOO_MANY = 70_010  # PJ_ETOOMANY
REPLACED_LINGER_S = 4.0
"""How long the peer of a replaced call has to hang it up."""

_CHALLENGE = 401
_NO_FILES = (
    f"PJSIP's sockets need descriptors below {SELECT_FILES}, and this process has none left: fewer calls, or "
    "more processes (mode: fleet)"
)
_ANY = ("0.0.0.0", "")  # noqa: S104


class Switchboard:
    """tell: hands a fact about a call to the loop. arrive: hands over a call that was let in. Both from any thread."""

    def __init__(
        self,
        settings: SipSettings,
        admission: Admission,
        clock: MediaClock,
        tell: Tell,
        arrive: Arrive,
        capacity_hint: int = 0,
        trunks: SipTrunks | None = None,
    ) -> None:
        self._settings = settings
        self._trunks = trunks or SipTrunks(settings)
        self._replaced: deque[tuple[float, PjCall]] = deque()
        self._capacity_hint = capacity_hint
        self._admission = admission
        self._clock = clock
        self._arrive = arrive
        self._serials = itertools.count(1)
        self._calls: dict[int, PjCall] = {}
        self._fresh: list[int] = []
        self._over: list[PjCall] = []
        self._endpoint: SipEndpoint | None = None
        self._gate = MethodGate(self._decide, settings.retry_after_s)
        self._silence = StrangersSilence(self._trunks.door.is_stranger)
        self._challenges = ChallengeLimit()
        self._pace = Pace()
        self._rtp_ports = RtpPorts(settings.media_host or settings.host, *settings.rtp_ports)
        self._tidy = Tidy()
        self.tell = tell
        self.patch_bay: PatchBay
        self.record_messages = settings.record_messages
        self.port = self.tls_port = 0
        self.capacity = 0
        self.version = ""

    def open(self) -> None:
        """Start PJSIP. Raises ConfigError."""
        trunks = self._trunks
        endpoint = SipEndpoint(self._settings, trunks.accounts, self._capacity_hint, use_tls=trunks.use_tls)
        endpoint.codecs = trunks.codecs
        try:
            endpoint.open(self._on_incoming, self._install, lambda: trunks.door.passing)
        except Exception:
            self._remove()
            endpoint.close()
            raise
        self._endpoint = endpoint  # only now: a poll of what is not open would abort the process
        self.port, self.capacity, self.version = endpoint.port, endpoint.capacity, endpoint.version
        self.tls_port = endpoint.tls_port
        self._clock.read_rtp = rtp_reader.take_over()
        self._clock.thread_began = raise_priority
        self.patch_bay = PatchBay(endpoint.devices, self._clock, pcm.choose, spare=2 * self.capacity)
        wanted = self._settings.inbound_calls
        self._admission.limit = min(wanted or max(1, self.capacity - 1), self.capacity)

    @property
    def wake_address(self) -> tuple[str, int]:
        host = self._settings.host
        return ("127.0.0.1" if host in _ANY else host), self.port

    def next_serial(self) -> int:
        """Any thread."""
        return next(self._serials)

    def poll(self, milliseconds: int) -> None:
        self._bury()
        if self._endpoint is not None:
            self._endpoint.poll(milliseconds)
            self.take_back()
            self._drop_refused()
            if not self.patch_bay.running:
                self._clock.read_rtp()  # frees the keys of closed sockets

    def supervise(self) -> None:
        """Once a second: the counters of each call, the clock's rest, memory that nobody uses."""
        for call in [call for call in self._calls.values() if not call.isActive()]:
            call.lost(None)
        now_s = time.monotonic()
        for serial, call in tuple(self._calls.items()):
            call.try_again(now_s)
            call.give_up(now_s)
            seen = call.snapshot()
            if seen is not None:
                self.tell(serial, seen)
        self._end_replaced()
        self.patch_bay.rest()
        self._tidy.look(time.monotonic(), len(self._calls))

    def close(self) -> None:
        """Destroy everything that is left."""
        self._over += self._calls.values()
        self._calls.clear()
        self._bury(closing=True)
        self.patch_bay.close()
        self._remove()
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            endpoint.close()

    # --- commands -----------------------------------------------------------------------------------------------------

    def dial(
        self, serial: int, line: MediaLine, uri: str, headers: Mapping[str, str], from_uri: str, trunk: str = ""
    ) -> str:
        """Send an INVITE; returns its Call-ID. Raises CapacityError when no account is left, else pj.Error."""
        if not self._rtp_ports.any_files():
            raise CapacityError(_NO_FILES)
        call = PjCall(self, serial, self._trunks.for_outgoing(trunk, self.busy_trunks()), line)
        self._trunks.assign(call, trunk)
        self._calls[serial] = call
        try:
            return call.dial(uri, {**headers, **self._trunks.headers_of(trunk)}, from_uri)
        except pj.Error as error:
            self.let_go(serial)
            if error.status == _TOO_MANY:  # a call that was given up keeps its slot until its INVITE times out
                raise CapacityError(f"PJSIP holds {self.capacity} calls, and all are taken") from None
            raise
        except Exception:
            self.let_go(serial)
            raise

    def register(self, trunk: str) -> None:
        """Send REGISTER. Raises CapacityError when PJSIP has no account left."""
        self._trunks.accounts.register(trunk, self.busy_trunks())

    def unregister(self, trunk: str) -> bool:
        """False when there is nothing to end."""
        return self._trunks.accounts.unregister(trunk)

    def probe(self, trunk: str) -> None:
        """Send OPTIONS."""
        self._trunks.accounts.probe(trunk)

    def respond(self, serial: int, code: int, reason: str, headers: Mapping[str, str]) -> None:
        with self._unless_lost(serial) as call:
            call.respond(code, reason, headers)

    def end(self, serial: int, code: int) -> None:
        with self._unless_lost(serial) as call:
            call.end(code)

    def refer(self, serial: int, uri: str, replaced: int | None) -> None:
        self._call(serial).refer(uri, None if replaced is None else self._call(replaced))

    def wire(self, serial: int) -> None:
        """Connect the call's sound as its line wants it now, unless the call is gone."""
        call = self._calls.get(serial)
        if call is not None:
            call.sound.wire()

    def press(self, serial: int, keys: str, duration_ms: int) -> None:
        self._call(serial).press(keys, duration_ms)

    def end_all(self) -> None:
        for call in tuple(self._calls.values()):
            try:
                call.end(503, DRAINING.headers(self._settings.retry_after_s))
            except pj.Error as error:
                logger("sip").warning("a call could not be ended", reason=error.reason)

    def let_go(self, serial: int) -> None:
        call = self._calls.pop(serial, None)
        if call is not None:
            self._over.append(call)

    def _install(self) -> None:
        self._gate.install()
        if self._trunks.door.is_kept:
            self._silence.install()
        if self._trunks.have_credentials:
            self._challenges.install()

    def _remove(self) -> None:
        self._challenges.remove()
        self._silence.remove()
        self._gate.remove()

    def busy_trunks(self) -> set[str]:
        """Those that calls use now."""
        return {call.trunk for call in (*self._calls.values(), *self._over)}

    # --- what calls ask of each other ---------------------------------------------------------------------------------

    def sound_of(self, serial: int) -> CallSound | None:
        call = self._calls.get(serial)
        return call.sound if call is not None else None

    def feeders_of(self, serial: int) -> tuple[CallSound, ...]:
        return tuple(call.sound for call in self._calls.values() if call.sound.feeds(serial))

    def may_refer(self, call: PjCall, target: str) -> bool:
        """By the policy of the trunk that the call belongs to, and while PJSIP has a slot for one more."""
        trunk = self._trunks.named(call.trunk)
        return trunk is not None and targets.allowed(trunk.refer_to, target) and self._taken() < self.capacity

    def may_replace(self, call: PjCall, text: str, source: str) -> bool:
        """Only the trunk of a call may replace it, and only where its settings say so."""
        if self._trunks.door.enter(source, text) is not None:
            return False
        offer = self._offer(text, source)
        trunk = self._trunks.named(offer.trunk)
        return trunk is not None and trunk.replaces and offer.trunk == call.trunk

    def lend(self, account: pj.Account, trunk: str) -> None:
        self._trunks.accounts.lend(account, trunk)

    def take_back(self) -> None:
        self._trunks.accounts.take_back()

    def adopt(self, account: pj.Account, trunk: str, call_id: int = pj.PJSUA_INVALID_ID) -> PjCall:
        serial = self.next_serial()
        call = self._calls[serial] = PjCall(self, serial, account, MediaLine(Playout()), call_id)
        self._trunks.assign(call, trunk)
        return call

    def took_over(self, new: PjCall, old: PjCall) -> None:
        self._calls[new.serial], self._calls[old.serial] = new, old
        self._replaced.append((time.monotonic(), old))

    # --- inside -------------------------------------------------------------------------------------------------------

    def _end_replaced(self) -> None:
        """The peer of a call that another one has replaced hangs it up; if it does not, we do."""
        while self._replaced and time.monotonic() - self._replaced[0][0] > REPLACED_LINGER_S:
            _, call = self._replaced.popleft()
            if call in self._calls.values() and call.isActive():
                call.end(480)

    def _taken(self) -> int:
        return capacity.taken() or len(self._calls)

    def _offer(self, text: str, source: str) -> SipOffer:
        offer = SipOffer.of_invite(SipText.parse(text), source, behind_edge=self._settings.behind_edge)
        return self._trunks.shown(offer)

    @contextmanager
    def _unless_lost(self, serial: int) -> Iterator[PjCall]:
        """For commands to a call that PJSIP may have ended without telling: it refuses some INVITEs itself (422: the
        session interval is too small) when we answer them. Such a call is over; its id may belong to the next one.
        """
        call = self._call(serial)
        try:
            yield call
        except pj.Error as error:
            if call.isActive():
                raise
            call.lost(error)
            raise CarrierError(f"PJSIP ended the call: {error.reason}") from None

    def _drop_refused(self) -> None:
        """PJSIP refuses some INVITEs after it has shown them (422), tells nobody, and gives the id to the next call."""
        while self._fresh:
            call = self._calls.get(self._fresh.pop())
            if call is not None and not call.isActive():
                call.lost(None)

    def _call(self, serial: int) -> PjCall:
        call = self._calls.get(serial)
        if call is None:
            raise CarrierError("the leg is gone")
        return call

    def _inbound(self) -> int:
        return sum(call.inbound for call in self._calls.values())

    def _bury(self, *, closing: bool = False) -> None:
        """Destroy calls that are over; never from inside one of their callbacks.

        The destructor of `pj::Call` hangs up whatever call has its id by then. PJSIP reads several packets at once, so
        the next INVITE may have taken the id already: such an object waits until the id is free again.
        """
        waiting = []
        for call in self._over:
            if not closing and call.isActive():
                waiting.append(call)
            else:
                pj.Call.__swig_destroy__(call)
        self._over = waiting

    def _decide(self, method: str, rdata: int) -> Refusal | None:
        door = self._trunks.door
        refusal = door.knock(method, rdata)
        if refusal is not None:
            return self._turned_away(refusal) if method == "INVITE" else refusal
        if method in NEEDS_DIALOG:
            return NO_DIALOG
        if method not in OUTSIDE_DIALOGS:
            return NO_METHOD
        if method == "OPTIONS" and self._admission.draining:
            return DRAINING
        if method != "INVITE":
            return None
        refusal = self._trunks.unacceptable(door.invite) if door.invite is not None else None
        return self._turned_away(refusal) if refusal is not None else self._no_room()

    def _turned_away(self, refusal: Refusal) -> Refusal:
        """Challenges are no news, and what is dropped is a flood or a scanner."""
        if refusal.code not in (SILENCE.code, _CHALLENGE):
            source = self._trunks.door.source
            logger("sip").info("call refused", why=refusal.why, code=refusal.code, source=source)
        return self._admission.counted(refusal)

    def _no_room(self) -> Refusal | None:
        """Before PJSIP opens sockets for the call. That all inbound places are taken is seen later: an INVITE that
        replaces a call needs none.
        """
        refusal = self._admission.crowded(0, full=self._taken() >= self.capacity)
        if refusal is not None:
            logger("sip").info("call refused", why=refusal.why, code=refusal.code)
            return refusal
        if not self._pace.take():
            return self._admission.counted(PACE)  # not logged: it is a flood
        if not self._rtp_ports.any_files():
            logger("sip").warning("call refused", why=NO_FILES.why, code=NO_FILES.code, advice=_NO_FILES)
            return self._admission.counted(NO_FILES)
        if not self._rtp_ports.any_free():
            logger("sip").warning("no free ports for sound, somebody else has them", ports=self._settings.rtp_ports)
            return self._admission.counted(NO_PORTS)
        return None

    def _refusal(self, source: str, text: str, inbound: int) -> Refusal | None:
        door = self._trunks.door
        if not door.is_kept:
            return self._admission.decide(source, inbound)
        refusal = door.enter(source, text)
        if refusal is None and door.invite is None:  # else `_decide` has looked at its offer
            refusal = self._trunks.unacceptable(SipText.parse(text))
        return self._admission.counted(refusal) if refusal is not None else self._admission.crowded(inbound)

    def _on_incoming(self, account: pj.Account, call_id: int, text: str, source: str) -> None:
        serial = self.next_serial()
        line = MediaLine(Playout())
        call = PjCall(self, serial, account, line, call_id)
        inbound = self._inbound()
        self._calls[serial] = call
        self._fresh.append(serial)
        refusal = self._refusal(source, text, inbound)
        if refusal is not None:
            logger("sip").info("call refused", why=refusal.why, code=refusal.code, source=source)
            headers = {**refusal.headers(self._settings.retry_after_s), **dict(refusal.extra)}
            call.respond(refusal.code or SOURCE.code, "", headers)
            return
        offer = self._offer(text, source)
        self._trunks.assign(call, offer.trunk)
        self._arrive(serial, offer, line)
        if self.record_messages:
            self.tell(serial, Message("received", source, text))
