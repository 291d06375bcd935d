"""Reading a call's audio stream: codec, addresses, counters. Sip thread only; plain values come out."""

from __future__ import annotations

import ctypes
import time
from dataclasses import replace

import pjsua2 as pj

from sipserver.sip import native
from sipserver.sip.facts import MediaUp, Snapshot

_FRAMES_A_PACKET = 2
"""The jitter buffer counts in the codec's frames: 10 ms for G.711 and G.722, whose packets are mostly 20 ms."""

_SRTP_AT_WORK = "SRTP status: Active"
_RTP_VERSION_2 = 0x80
_PEER_SSRC_AT = 40
"""Offset in `pjmedia_rtp_session` (pjmedia/rtp.h): 12 bytes header, 20 of sequence control, payload type, sequence
number.
"""


class _RtpSessions(ctypes.Structure):
    """`pjmedia_stream_rtp_sess_info`."""

    _fields_ = (("receiving", ctypes.c_void_p), ("sending", ctypes.c_void_p), ("rtcp", ctypes.c_void_p))


def describe(call: pj.Call, index: int, held: bool, before: MediaUp | None) -> MediaUp:
    """What was negotiated. While a stream is inactive PJSIP cannot tell; then it is what was negotiated before."""
    try:
        info = call.getStreamInfo(index)
    except pj.Error:
        if before is None:
            raise
        return replace(before, held=held)
    event = int(info.audTxEventPt)
    return MediaUp(
        codec=str(info.codecName),
        payload_type=int(info.txPt),
        clock_hz=8000 if str(info.codecName).upper() == "G722" else int(info.codecClockRate),  # RFC 3551 section 4.5.2
        remote=str(info.remoteRtpAddress),
        telephone_event=event if event > 0 else None,
        held=held,
    )


def is_encrypted(call: pj.Call) -> bool:
    """Whether SRTP is at work. Only PJSIP's description of a call tells; it costs some 0.1 ms."""
    return _SRTP_AT_WORK in str(call.dump(True, ""))


def at(seen: Snapshot, now_s: float) -> Snapshot:
    return replace(seen, at_s=now_s)


class Discards:
    """Frames of one stream that its jitter buffer threw away while somebody listened. Where nobody takes its sound the
    buffer throws all away, and nobody misses it.
    """

    def __init__(self) -> None:
        self._missed = self._seen = 0
        self._heard = False

    def missed(self, total: int, *, heard: bool) -> int:
        """total: that the buffer has thrown away by now. heard: whether somebody listens. What it has thrown away since
        the last look counts if somebody listened then, too.
        """
        if heard and self._heard:
            self._missed += total - self._seen
        self._seen, self._heard = total, heard
        return self._missed


def snapshot(call: pj.Call, index: int, stream: int, before: Snapshot, discards: Discards, *, heard: bool) -> Snapshot:
    """Counters of the running stream on top of `before`. When PJSIP has none yet, `before` at this moment. discards: of
    this stream. heard: whether anybody takes its sound.
    """
    now_s = time.monotonic()
    try:
        statistics = call.getStreamStat(index)
        transport = call.getMedTransportInfo(index)
    except pj.Error:
        return at(before, now_s)
    rtcp, buffer = statistics.rtcp, statistics.jbuf
    thrown = discards.missed(int(buffer.discard), heard=heard)
    received, sent, round_trip = rtcp.rxStat, rtcp.txStat, rtcp.rttUsec
    return Snapshot(
        at_s=now_s,
        received=before.received + int(received.pkt),
        lost=before.lost + int(received.loss),
        duplicated=before.duplicated + int(received.dup),
        reordered=before.reordered + int(received.reorder),
        discarded=before.discarded + int(received.discard) + thrown // _FRAMES_A_PACKET,
        jitter_ms=received.jitterUsec.mean / 1000,
        sent=before.sent + int(sent.pkt),
        remote_lost=before.remote_lost + int(sent.loss),
        remote_jitter_ms=sent.jitterUsec.mean / 1000,
        round_trip_ms=round_trip.mean / 1000 if round_trip.n else before.round_trip_ms,
        buffer_ms=float(buffer.avgDelayMsec),
        source=str(transport.srcRtpName) if received.pkt else before.source,
        ssrc=peer_ssrc(stream) if received.pkt else before.ssrc,
    )


def peer_ssrc(stream: int) -> int | None:
    """SSRC of the RTP that came last, None where this PJSIP hides it. stream: address of a live stream."""
    look = native.function("pjmedia_stream_get_rtp_session_info")
    if look is None:
        return None
    sessions = _RtpSessions()
    if look(stream, ctypes.byref(sessions)) != 0 or not sessions.receiving:
        return None
    if ctypes.c_uint8.from_address(sessions.receiving).value != _RTP_VERSION_2:
        return None  # not the structure that we know
    first, second = (ctypes.c_uint32.from_address(sessions.receiving + _PEER_SSRC_AT + step).value for step in (0, 4))
    return second if first <= 1 else first  # newer ones have a flag "SSRC known" in front
