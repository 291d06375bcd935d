"""One pjsua2 call: its callbacks turned into facts for the loop, its commands carried out. Sip thread only.

PJSIP's unsafe answers for calls are replaced here: a REFER makes it dial out and an INVITE with Replaces takes over a
call only where the host says so, and a redirect ends the call unless it was dialled otherwise. No exception may leave a
callback: it would pass through C.

One call may take another one's place (`take_over`): whoever knows the old one by its serial then has the new one.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from typing import Any, Protocol, TypeVar

import pjsua2 as pj

from sipserver.log import logger
from sipserver.sip import codec_filter, digits, in_dialog, stream
from sipserver.sip.call_sound import CallSound, Neighbours
from sipserver.sip.facts import (
    Confirmed,
    Ended,
    Fact,
    Key,
    MediaUp,
    Message,
    Progress,
    Referred,
    ReferStatus,
    Replaced,
    Snapshot,
)
from sipserver.sip.message import SipText
from sipserver.sip.port import MediaLine
from sipserver.trunks.settings import Srtp

Method = TypeVar("Method", bound=Callable[..., Any])
REFERRED_RING_S = 180.0
"""How long somebody may ring whom a peer's REFER asked for (RFC 3261, timer C)."""
_REQUEST_PENDING = 491
_SIP_STATUS_ERRORS = 170_000  # PJSIP_ERRNO_FROM_SIP_STATUS
_LIVE = (pj.PJSUA_CALL_MEDIA_ACTIVE, pj.PJSUA_CALL_MEDIA_LOCAL_HOLD, pj.PJSUA_CALL_MEDIA_REMOTE_HOLD)


class Host(Neighbours, Protocol):
    """What a call needs from the cell. Sip thread, but `tell` any thread."""

    record_messages: bool

    def tell(self, serial: int, fact: Fact) -> None: ...

    def let_go(self, serial: int) -> None:
        """The call is over: destroy it once the callback has returned."""
        ...

    def may_refer(self, call: PjCall, target: str) -> bool:
        """Whether the peer of a call may have us call somebody in its place, and a leg is free for it."""
        ...

    def may_replace(self, call: PjCall, text: str, source: str) -> bool:
        """Whether this INVITE may take the call's place. source: host:port it came from."""
        ...

    def lend(self, account: pj.Account, trunk: str) -> None:
        """The next call that PJSIP places on the account goes out by the trunk."""
        ...

    def take_back(self) -> None:
        """It has gone out."""
        ...

    def adopt(self, account: pj.Account, trunk: str, call_id: int = ...) -> PjCall:
        """A call of the cell that no leg knows (yet), under a serial of its own and the rules of the trunk."""
        ...

    def took_over(self, new: PjCall, old: PjCall) -> None:
        """Both have exchanged their serials."""
        ...


def _guarded(method: Method) -> Method:
    @wraps(method)
    def callback(self: Any, prm: Any) -> None:
        try:
            method(self, prm)
        except Exception:
            logger("sip").exception("a callback of PJSIP failed", callback=method.__name__)

    return callback  # type: ignore[return-value]


class PjCall(pj.Call):  # type: ignore[misc]
    """serial: the cell's name for the call, never reused; PJSIP's own ids are."""

    def __init__(
        self, host: Host, serial: int, account: pj.Account, line: MediaLine, call_id: int = pj.PJSUA_INVALID_ID
    ) -> None:
        super().__init__(account, call_id)
        self.account = account
        self.trunk = ""
        self.redirects = False
        self.inbound = call_id != pj.PJSUA_INVALID_ID
        self.srtp: Srtp = "off"
        self.codecs: tuple[str, ...] = ()
        """That the call may use, in the order of our preference; empty for those of the cell."""
        self.heir: PjCall | None = None  # took our place; what is left of our dialog is told as its
        self._refer_taken = False  # our REFER was answered 2xx
        self._heirs_of: PjCall | None = None  # whose place we take when we are answered
        self._coming: PjCall | None = None  # who takes ours when it is answered
        self._host = host
        self._sound = CallSound(self, serial, line, host)
        self._stream: int | None = None  # address of the pjmedia_stream
        self._before = Snapshot(0.0)  # totals of streams that are gone
        self._discards = stream.Discards()
        self._media: MediaUp | None = None
        self._began_s = time.monotonic()
        self._again_at_s: float | None = None  # when to send a re-INVITE again
        self._ended_by_us = False
        self._refusing = False
        self._own_cause = ""
        self._peer = ""
        self._last_message = ("", "")

    # --- commands -----------------------------------------------------------------------------------------------------

    def dial(self, uri: str, headers: Mapping[str, str], from_uri: str) -> str:
        """Send the INVITE. Returns its Call-ID."""
        prm = pj.CallOpParam(True)
        prm.opt.audioCount, prm.opt.videoCount = 1, 0
        if from_uri:
            prm.txOption.localUri = from_uri
        _add_headers(prm, headers)
        self.makeCall(uri, prm)
        return str(self.getInfo().callIdString)

    def respond(self, code: int, reason: str = "", headers: Mapping[str, str] | None = None) -> None:
        prm = pj.CallOpParam(True)
        prm.statusCode, prm.reason = code, reason
        prm.opt.audioCount, prm.opt.videoCount = 1, 0
        _add_headers(prm, headers or {})
        if code >= 300:
            self._ended_by_us = self._refusing = True
        self.answer(prm)

    def end(self, code: int, headers: Mapping[str, str] | None = None) -> None:
        """BYE, CANCEL, or a final answer with the code and the headers.

        PJSIP reports the end before it sends BYE or CANCEL, and shows neither: only their names can be recorded.
        """
        answered = self.getInfo().state in (pj.PJSIP_INV_STATE_CONNECTING, pj.PJSIP_INV_STATE_CONFIRMED)
        if self.inbound and not answered:
            self.respond(code, "", headers)
            return
        self._ended_by_us = True
        if self._host.record_messages:
            self._tell(Message("sent", self._peer, "BYE" if answered else "CANCEL"))
        self.hangup(pj.CallOpParam())

    def lost(self, error: pj.Error | None) -> None:
        """PJSIP ended the call without telling. error: its answer to our last command, which may hold a SIP status."""
        status = (error.status if error is not None else 0) - _SIP_STATUS_ERRORS
        code = status if 300 <= status < 700 else 480
        self._finish(code, "ended by PJSIP" if error is None else str(error.reason), by_peer=False)

    def press(self, keys: str, duration_ms: int) -> None:
        """Send RFC 4733 events. PJSIP queues them and keeps a pause in between."""
        prm = pj.CallSendDtmfParam()
        prm.method, prm.duration, prm.digits = pj.PJSUA_DTMF_METHOD_RFC2833, duration_ms, keys
        self.sendDtmf(prm)

    def refer(self, uri: str, replaced: PjCall | None) -> None:
        """Send REFER; with Replaces when a dialog is named that the new call shall replace."""
        prm = pj.CallOpParam(True)
        self._refer_taken = False
        if replaced is None:
            self.xfer(uri, prm)
        else:
            self.xferReplaces(replaced, prm)

    @property
    def serial(self) -> int:
        return self._sound.serial

    @property
    def sound(self) -> CallSound:
        return self._sound

    def take_over(self, old: PjCall, by: str) -> None:
        """Become what the other call was: whoever knows it by its serial has us. It has no leg any more."""
        self._sound.take_over(old._sound)
        old.heir = self
        self._host.took_over(self, old)
        info = self.getInfo()
        self._tell(Replaced(by, str(info.remoteUri), self._peer, str(info.callIdString)))
        if self._media is not None:
            self._tell(self._media)
        self._sound.wire()
        for feeder in self._host.feeders_of(self.serial):
            feeder.wire()

    def give_up(self, now_s: float) -> None:
        """Cancel what a peer's REFER asked for when nobody answers it; the peer reads it in the NOTIFY."""
        if self._heirs_of is not None and now_s - self._began_s > REFERRED_RING_S:
            self.end(487)

    def try_again(self, now_s: float) -> None:
        """Send the re-INVITE that met one of the peer's (491), once its time has come (RFC 3261, section 14.1: after
        2.1 to 4 s in a dialog that we began, up to 2 s in one of the peer's).
        """
        if self._again_at_s is None or now_s < self._again_at_s:
            return
        self._again_at_s = None
        try:
            self.reinvite(pj.CallOpParam(True))
        except pj.Error as error:
            logger("sip").info("a re-INVITE is not sent again", reason=error.reason)

    def snapshot(self) -> Snapshot | None:
        """The leg's RTP totals now, None while there never was a stream."""
        if self._sound.index is None or self._stream is None:
            return stream.at(self._before, time.monotonic()) if self._media is not None else None
        return self._look(self._sound.index, self._stream)

    def _look(self, index: int, address: int) -> Snapshot:
        return stream.snapshot(self, index, address, self._before, self._discards, heard=self._sound.heard)

    # --- callbacks ----------------------------------------------------------------------------------------------------

    @_guarded
    def onCallState(self, prm: Any) -> None:  # noqa: N802
        event = prm.e
        body = event.body
        if event.type == pj.PJSIP_EVENT_RX_MSG:
            self._seen(received=body.rxMsg.rdata)
        elif event.type == pj.PJSIP_EVENT_TX_MSG:
            self._seen(sent=body.txMsg.tdata)
        info = self.getInfo()
        if self._heirs_of is not None:
            self._host.take_back()
        if info.state == pj.PJSIP_INV_STATE_EARLY and not self.inbound:
            self._tell(Progress(int(info.lastStatusCode), _has_sdp(event, body)))
        elif info.state == pj.PJSIP_INV_STATE_CONFIRMED:
            if self._heirs_of is not None:
                old, self._heirs_of = self._heirs_of, None
                old._coming = None
                self.take_over(old, "refer")
            self._tell(self._confirmed())
            if self.inbound and self._media is None and event.type == pj.PJSIP_EVENT_RX_MSG:
                self._check_answer(body.rxMsg.rdata.wholeMsg)
        elif info.state == pj.PJSIP_INV_STATE_DISCONNECTED:
            code = int(info.lastStatusCode)
            cancelled = self.inbound and code == 487  # the event is then our own answer
            by_peer = not self._ended_by_us and (cancelled or _came_from_peer(event, body))
            self._finish(code, self._own_cause or str(info.lastReason), by_peer)

    @_guarded
    def onCallTsxState(self, prm: Any) -> None:  # noqa: N802
        event = prm.e
        if event.type != pj.PJSIP_EVENT_TSX_STATE:
            return
        body = event.body
        state = body.tsxState
        source = state.src
        if state.type == pj.PJSIP_EVENT_TX_MSG:
            self._seen(sent=source.tdata)
        elif state.type == pj.PJSIP_EVENT_RX_MSG:
            rdata = source.rdata
            self._seen(received=rdata)
            transaction = state.tsx
            if transaction.role == pj.PJSIP_ROLE_UAS and transaction.state == pj.PJSIP_TSX_STATE_TRYING:
                self._on_request(transaction.method, rdata)
            elif transaction.role == pj.PJSIP_ROLE_UAC:
                self._on_response(transaction.method, int(transaction.statusCode))

    @_guarded
    def onCallSdpCreated(self, prm: Any) -> None:  # noqa: N802
        ours, theirs = prm.sdp, prm.remSdp.wholeSdp
        written = ours.wholeSdp
        wanted = codec_filter.limited(written, self.codecs, theirs) if self.codecs else written
        if not theirs:
            wanted = digits.usual_payload_type(wanted)
        if wanted != written:
            ours.wholeSdp = wanted

    @_guarded
    def onCallRxOffer(self, prm: Any) -> None:  # noqa: N802
        """A re-INVITE or UPDATE. PJSIP would answer 500 where the codecs that we leave have none of the offer."""
        if self.codecs and not codec_filter.common(prm.offer.wholeSdp, self.codecs):
            prm.statusCode = 488

    @_guarded
    def onCallMediaState(self, prm: Any) -> None:  # noqa: N802
        info = self.getInfo()  # keep it: the vector lives in it
        for index, media in enumerate(info.media):
            if media.type != pj.PJMEDIA_TYPE_AUDIO or media.status not in _LIVE or media.audioConfSlot < 0:
                continue
            held = media.status == pj.PJSUA_CALL_MEDIA_REMOTE_HOLD
            self._sound.come(index, held=held)
            self._media = stream.describe(self, index, held, self._media)
            if self.srtp != "off":
                self._media = replace(self._media, encrypted=stream.is_encrypted(self))
            self._tell(self._media)
            return

    @_guarded
    def onStreamCreated(self, prm: Any) -> None:  # noqa: N802
        self._stream, self._discards = int(prm.stream), stream.Discards()
        self._sound.index = int(prm.streamIdx)

    @_guarded
    def onStreamDestroyed(self, prm: Any) -> None:  # noqa: N802
        if self._stream is not None and self._sound.index is not None:
            self._before = self._look(self._sound.index, self._stream)
        self._stream = None

    @_guarded
    def onDtmfEvent(self, prm: Any) -> None:  # noqa: N802
        """The media thread, for RFC 4733; what INFO brings is read in `onCallTsxState`.

        PJSIP itself drops a second press of the same key of which only packets arrive that are longer than the first.
        """
        if prm.method == pj.PJSUA_DTMF_METHOD_RFC2833:
            self._tell(Key(prm.digit.upper(), "rfc4733", int(prm.timestamp), None))

    @_guarded
    def onCallTransferRequest(self, prm: Any) -> None:  # noqa: N802
        """With 202 PJSIP calls the target on our account, and tells the peer by NOTIFY how that goes."""
        prm.statusCode = 603
        target = str(prm.dstUri)
        if self.heir is None and self._host.may_refer(self, target):
            prm.newCall = new = self._host.adopt(self.account, self.trunk)
            new._heirs_of, self._coming = self, new
            self._host.lend(self.account, self.trunk)
            prm.statusCode = 202
        self._tell(Referred(int(prm.statusCode), target))

    @_guarded
    def onCallTransferStatus(self, prm: Any) -> None:  # noqa: N802
        final = bool(prm.finalNotify)
        self._tell(ReferStatus(int(prm.statusCode), str(prm.reason), final, refused=final and not self._refer_taken))
        prm.cont = not prm.finalNotify

    @_guarded
    def onCallReplaceRequest(self, prm: Any) -> None:  # noqa: N802
        prm.statusCode = 603
        if self.heir is None and self._host.may_replace(self, prm.rdata.wholeMsg, prm.rdata.srcAddress):
            prm.statusCode = 200

    @_guarded
    def onCallReplaced(self, prm: Any) -> None:  # noqa: N802
        """PJSIP has answered an INVITE that replaces us; it ends our dialog by itself."""
        prm.newCall = new = self._host.adopt(self.account, self.trunk, prm.newCallId)
        self._ended_by_us = True
        new.take_over(self, "replaces")

    def onCallRedirected(self, prm: Any) -> int:  # noqa: N802
        return int(pj.PJSIP_REDIRECT_ACCEPT_REPLACE if self.redirects else pj.PJSIP_REDIRECT_REJECT)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _on_request(self, method: str, rdata: Any) -> None:
        """A new request inside the dialog, not a retransmission: PJSIP's transactions absorb those."""
        if method == "INFO":
            message = SipText.parse(rdata.wholeMsg)
            found = digits.of_info(message)
            if found is not None:
                self._tell(Key(found[0], "info", 0, found[1]))
            if message.content_type != "application/dtmf-relay":  # PJSIP answers that one, and only that one
                in_dialog.respond(rdata, 200 if found is not None or not message.body else 415)
        elif method == "OPTIONS":
            in_dialog.respond(rdata, 200)
        elif method not in in_dialog.LEFT_TO_PJSIP:
            in_dialog.respond(rdata, 405)

    def _on_response(self, method: str, status: int) -> None:
        if method == "REFER" and 200 <= status < 300:
            self._refer_taken = True
        elif method in ("INVITE", "UPDATE") and status == _REQUEST_PENDING and self._media is not None:
            # PJSIP would not try again, and a session that it wanted to refresh would end
            low_s, high_s = (0.0, 2.0) if self.inbound else (2.1, 4.0)
            self._again_at_s = time.monotonic() + random.uniform(low_s, high_s)  # noqa: S311 # nosec B311

    def _check_answer(self, ack: str) -> None:
        """Our 200 carried the offer; an ACK without the answer leaves a call that can never have media."""
        if not SipText.parse(ack).has_sdp:
            self._own_cause = "the ACK brought no SDP"
            self.end(488)

    def _confirmed(self) -> Confirmed:
        allowed = self.remoteHasCap(pj.PJSIP_H_ALLOW, "", "REFER")
        supported = self.remoteHasCap(pj.PJSIP_H_SUPPORTED, "", "replaces")
        return Confirmed(allowed != pj.PJSIP_DIALOG_CAP_UNSUPPORTED, supported == pj.PJSIP_DIALOG_CAP_SUPPORTED)

    def _tell(self, fact: Fact) -> None:
        """Of a dialog that was replaced, or is about to replace another, the leg's record has the messages."""
        kin = self.heir or self._heirs_of
        if kin is None:
            self._host.tell(self.serial, fact)
        elif isinstance(fact, Message):
            self._host.tell(kin.serial, fact)

    def _seen(self, received: Any = None, sent: Any = None) -> None:
        if not self._host.record_messages:
            return
        if sent is None:
            message = Message("received", received.srcAddress, received.wholeMsg)
        else:
            message = Message("sent", sent.dstAddress, sent.wholeMsg)
        key = (message.direction, message.text)
        self._peer = message.peer or self._peer
        if message.text and key != self._last_message:
            self._last_message = key
            self._tell(message)

    def _finish(self, code: int, cause: str, by_peer: bool) -> None:
        last = self.snapshot()
        if self._refusing and self._host.record_messages:
            # PJSIP reports the end before it sends the refusal, and does not show it: only its first line is known
            self._tell(Message("sent", self._peer, f"SIP/2.0 {code} {cause}"))
        if self._heirs_of is not None:
            self._heirs_of._coming = None
        if self._coming is not None:
            self._coming.end(487)
        self._sound.go()
        self._tell(Ended(code, cause, by_peer, last))
        self._host.let_go(self.serial)


def _has_sdp(event: Any, body: Any) -> bool:
    if event.type != pj.PJSIP_EVENT_TSX_STATE or body.tsxState.type != pj.PJSIP_EVENT_RX_MSG:
        return False
    return SipText.parse(body.tsxState.src.rdata.wholeMsg).has_sdp


def _came_from_peer(event: Any, body: Any) -> bool:
    if event.type == pj.PJSIP_EVENT_RX_MSG:
        return True
    return bool(event.type == pj.PJSIP_EVENT_TSX_STATE and body.tsxState.type == pj.PJSIP_EVENT_RX_MSG)


def _add_headers(prm: Any, headers: Mapping[str, str]) -> None:
    if not headers:
        return
    vector = pj.SipHeaderVector()
    for name, value in headers.items():
        header = pj.SipHeader()
        header.hName, header.hValue = name, value
        vector.append(header)
    prm.txOption.headers = vector
