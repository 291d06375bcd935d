"""One pjsua2 call: its callbacks turned into facts for the loop, its commands carried out. Sip thread only.

PJSIP's unsafe answers for calls are replaced here: a REFER is refused (PJSIP would dial out), INVITE with Replaces is
refused (it would take over a call), a redirect ends the call. No exception may leave a callback: it would pass
through C.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Protocol, TypeVar

import pjsua2 as pj

from sipserver.log import logger
from sipserver.sip import codec_filter, digits, in_dialog, stream
from sipserver.sip.facts import Confirmed, Ended, Fact, Key, MediaUp, Message, Progress, Snapshot
from sipserver.sip.message import SipText
from sipserver.sip.patch_bay import LegPort, PatchBay
from sipserver.sip.port import MediaLine

Method = TypeVar("Method", bound=Callable[..., Any])
_SIP_STATUS_ERRORS = 170_000  # PJSIP_ERRNO_FROM_SIP_STATUS
_LIVE = (pj.PJSUA_CALL_MEDIA_ACTIVE, pj.PJSUA_CALL_MEDIA_LOCAL_HOLD, pj.PJSUA_CALL_MEDIA_REMOTE_HOLD)


class Host(Protocol):
    """What a call needs from the cell. Sip thread, but `tell` any thread."""

    patch_bay: PatchBay
    record_messages: bool

    def tell(self, serial: int, fact: Fact) -> None: ...

    def let_go(self, serial: int) -> None:
        """The call is over: destroy it once the callback has returned."""
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
        self.serial = serial
        self.inbound = call_id != pj.PJSUA_INVALID_ID
        self.trunk = ""
        self.codecs: tuple[str, ...] = ()
        """That the call may use, in the order of our preference; empty for those of the cell."""
        self._host = host
        self._line = line
        self._port: LegPort | None = None
        self._audio: int | None = None  # index of the audio stream
        self._stream: int | None = None  # address of the pjmedia_stream
        self._before = Snapshot(0.0)  # totals of streams that are gone
        self._media: MediaUp | None = None
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

    def wire(self) -> None:
        """Connect the sound as the line wants it now; nothing while there is no media, which does the same."""
        if self._port is not None and self._audio is not None and self._line.wanted != self._line.wired:
            self._port.wire(self.getAudioMedia(self._audio), self._line, afresh=False)

    def snapshot(self) -> Snapshot | None:
        """The leg's RTP totals now, None while there never was a stream."""
        if self._audio is None or self._stream is None:
            return stream.at(self._before, time.monotonic()) if self._media is not None else None
        return stream.snapshot(self, self._audio, self._stream, self._before)

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
        if info.state == pj.PJSIP_INV_STATE_EARLY and not self.inbound:
            self._tell(Progress(int(info.lastStatusCode)))
        elif info.state == pj.PJSIP_INV_STATE_CONFIRMED:
            self._tell(Confirmed())
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

    @_guarded
    def onCallSdpCreated(self, prm: Any) -> None:  # noqa: N802
        if self.codecs:
            ours = prm.sdp
            ours.wholeSdp = codec_filter.limited(ours.wholeSdp, self.codecs, prm.remSdp.wholeSdp)

    @_guarded
    def onCallMediaState(self, prm: Any) -> None:  # noqa: N802
        info = self.getInfo()  # keep it: the vector lives in it
        for index, media in enumerate(info.media):
            if media.type != pj.PJMEDIA_TYPE_AUDIO or media.status not in _LIVE or media.audioConfSlot < 0:
                continue
            held = media.status == pj.PJSUA_CALL_MEDIA_REMOTE_HOLD
            self._audio = index
            self._line.muted = held
            if self._port is None:
                self._port = self._host.patch_bay.take(self._line)
            self._port.wire(self.getAudioMedia(index), self._line, afresh=True)
            self._media = stream.describe(self, index, held, self._media)
            self._tell(self._media)
            return

    @_guarded
    def onStreamCreated(self, prm: Any) -> None:  # noqa: N802
        self._stream = int(prm.stream)
        self._audio = int(prm.streamIdx)

    @_guarded
    def onStreamDestroyed(self, prm: Any) -> None:  # noqa: N802
        if self._stream is not None and self._audio is not None:
            self._before = stream.snapshot(self, self._audio, self._stream, self._before)
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
        prm.statusCode = 603

    @_guarded
    def onCallReplaceRequest(self, prm: Any) -> None:  # noqa: N802
        prm.statusCode = 603

    def onCallRedirected(self, prm: Any) -> int:  # noqa: N802
        return int(pj.PJSIP_REDIRECT_REJECT)

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

    def _check_answer(self, ack: str) -> None:
        """Our 200 carried the offer; an ACK without the answer leaves a call that can never have media."""
        if not SipText.parse(ack).has_sdp:
            self._own_cause = "the ACK brought no SDP"
            self.end(488)

    def _tell(self, fact: Fact) -> None:
        self._host.tell(self.serial, fact)

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
        if self._port is not None:
            self._host.patch_bay.give(self._port)
            self._port = None
        self._tell(Ended(code, cause, by_peer, last))
        self._host.let_go(self.serial)


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
