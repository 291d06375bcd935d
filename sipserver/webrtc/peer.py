"""One connection to a browser: aiortc's RTCPeerConnection, with what the leg does itself left out.

Owns offer and answer, the packets and the data channel of one connection. Refuses to know the call: after an ICE
restart another peer serves the same leg. The only module that reaches into aiortc: packets are taken where its jitter
buffer would take them, so that nothing is decoded in a thread of its own, and given as encoded packets, which aiortc
sends as they are (docs/decisions/0017).
"""

from __future__ import annotations

import asyncio
import fractions
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import av
from aiortc import (
    RTCBundlePolicy,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.exceptions import InvalidStateError
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from sipserver.codecs import table
from sipserver.errors import CallerError, NotAcceptable
from sipserver.log import logger
from sipserver.webrtc.settings import IceServer, WebRtcSettings

CHANNEL = "sipserver"
"""Label of the data channel. Others are taken as well, if the page opened just one."""
_WAITING_PACKETS = 5
_MOST_BUFFERED = 65_536
"""Bytes on the data channel that a browser has not taken; beyond them what could be shown is dropped."""
_LAST_WORDS_S = 1.0


@dataclass(frozen=True, slots=True)
class PathReport:
    """What both ends know of the path. Packets are totals of this connection. None: not told yet.

    remote_loss_percent: between the browser's last two reports. reported: how many there were.
    """

    received: int = 0
    lost: int = 0
    jitter_ms: float = 0.0
    sent: int = 0
    remote_lost: int = 0
    remote_jitter_ms: float = 0.0
    remote_loss_percent: float | None = None
    round_trip_ms: float | None = None
    at: object = None


class Outlet(MediaStreamTrack):
    """Encoded packets on their way to aiortc's sender. Overflow: the oldest packet goes; the number of it is kept."""

    kind = "audio"

    def __init__(self, clock_hz: int) -> None:
        super().__init__()
        self._time_base = fractions.Fraction(1, clock_hz)
        self._packets: deque[av.Packet[Any]] = deque(maxlen=_WAITING_PACKETS)
        self._some = asyncio.Event()

    def put(self, payload: bytes, timestamp: int) -> None:
        packet = av.Packet(payload)
        packet.pts, packet.time_base = timestamp, self._time_base
        self._packets.append(packet)
        self._some.set()

    async def recv(self) -> av.Packet[Any]:
        while not self._packets:
            if self.readyState != "live":
                raise MediaStreamError
            self._some.clear()
            await self._some.wait()
        return self._packets.popleft()

    def stop(self) -> None:
        super().stop()
        self._some.set()


class _Tap:
    """Stands where aiortc's jitter buffer stands (`JitterBuffer.add`): hands the packet on, and nothing to decode."""

    def __init__(self, take: Callable[[int, int, bytes], None]) -> None:
        self._take = take

    def add(self, packet: Any) -> tuple[bool, None]:
        self._take(packet.sequence_number, packet.timestamp, packet.payload)
        return False, None


class Peer:
    """`answer` once, `close` once. Loop thread. The callbacks may be set until `answer`.

    on_packet: (sequence, timestamp, payload). on_state: W3C's RTCPeerConnectionState. on_text: a message of the
    channel. on_channel: it is open.
    """

    def __init__(self, settings: WebRtcSettings) -> None:
        self._settings = settings
        self._connection = RTCPeerConnection(
            RTCConfiguration(iceServers=_servers(settings.ice_servers), bundlePolicy=RTCBundlePolicy.MAX_BUNDLE)
        )
        self._connection.on("connectionstatechange", self._changed)
        self._connection.on("datachannel", self._opened)
        self._channel: Any = None
        self._channel_up = asyncio.Event()
        self._outlet: Outlet | None = None
        self._closed = False
        self.codec = table.OPUS
        self.payload_type = -1
        self.on_packet: Callable[[int, int, bytes], None] = lambda *_: None
        self.on_state: Callable[[str], None] = lambda _: None
        self.on_text: Callable[[str], None] = lambda _: None
        self.on_channel: Callable[[], None] = lambda: None

    @property
    def state(self) -> str:
        return str(self._connection.connectionState)

    @property
    def has_channel(self) -> bool:
        return self._channel is not None and self._channel.readyState == "open"

    async def answer(self, offer: str) -> str:
        """Our SDP, with all our candidates. Raises CallerError for SDP that is none, NotAcceptable when it offers no
        sound or no codec of ours.
        """
        connection = self._connection
        try:
            await connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        except InvalidStateError:
            raise
        except Exception as problem:  # the parser raises whatever it meets: IndexError, KeyError, AssertionError, ...
            if type(problem).__name__ == "OperationError":
                raise NotAcceptable("no codec of the offer is known here") from problem
            raise CallerError("the offer cannot be read") from problem
        sounds = [each for each in connection.getTransceivers() if each.kind == "audio"]
        if len(sounds) != 1 or len(connection.getTransceivers()) != 1:
            raise NotAcceptable("the offer is to have one sound and no picture")
        transceiver = sounds[0]
        names = [name.lower() for name in self._settings.codecs]
        capabilities = RTCRtpSender.getCapabilities("audio").codecs
        known = sorted(
            (each for each in capabilities if each.name.lower() in names),
            key=lambda each: names.index(each.name.lower()),
        )
        transceiver.setCodecPreferences(known)
        try:
            await connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        except Exception as problem:
            raise NotAcceptable("no codec of the offer is wanted here") from problem
        chosen = transceiver._codecs[0]
        codec = table.find(chosen.name, chosen.clockRate)
        assert codec is not None
        self.codec, self.payload_type = codec, int(chosen.payloadType or 0)
        self._outlet = Outlet(codec.clock_hz)
        transceiver.sender.replaceTrack(self._outlet)
        transceiver.direction = "sendrecv"
        _tap(transceiver.receiver, self._heard)
        await connection.setLocalDescription(await connection.createAnswer())
        return _with_fec(str(connection.localDescription.sdp), self.payload_type, codec)

    def send(self, payload: bytes, timestamp: int) -> None:
        """A packet of `codec`. timestamp: of its clock. Nothing unless connected."""
        if self._outlet is not None and self.state == "connected":
            self._outlet.put(payload, timestamp)

    def tell(self, text: str) -> bool:
        """A message on the data channel. False: there is none, or the browser does not take what waits already."""
        if self._closed or not self.has_channel or self._channel.bufferedAmount > _MOST_BUFFERED:
            return False
        self._channel.send(text)
        return True

    def pair(self) -> tuple[str, str]:
        """The kinds of both ends of the path (`host-relay`), and the browser's address; empty before there is one."""
        for transceiver in self._connection.getTransceivers():
            nominated = getattr(transceiver.receiver.transport.transport._connection, "_nominated", {})
            for pair in nominated.values():
                remote = pair.remote_candidate
                return f"{pair.local_candidate.type}-{remote.type}", f"{remote.host}:{remote.port}"
        return "", ""

    async def report(self) -> PathReport:
        """What getStats says now."""
        if self._closed:
            return PathReport()
        stats = await self._connection.getStats()
        kinds = {each.type: each for each in stats.values()}
        per_ms = self.codec.clock_hz / 1000
        inbound, outbound = kinds.get("inbound-rtp"), kinds.get("outbound-rtp")
        remote = kinds.get("remote-inbound-rtp")
        trip = None if remote is None else remote.roundTripTime
        return PathReport(
            received=0 if inbound is None else inbound.packetsReceived,
            lost=0 if inbound is None else max(0, inbound.packetsLost),
            jitter_ms=0.0 if inbound is None else inbound.jitter / per_ms,
            sent=0 if outbound is None else outbound.packetsSent,
            remote_lost=0 if remote is None else max(0, remote.packetsLost),
            remote_jitter_ms=0.0 if remote is None else remote.jitter / per_ms,
            remote_loss_percent=None if remote is None else remote.fractionLost / 2.56,
            round_trip_ms=None if trip is None else max(0.0, trip * 1000),
            at=None if remote is None else remote.timestamp,
        )

    async def close(self, last_words: Sequence[str] = ()) -> None:
        """Idempotent. last_words: messages that are told first, if the browser takes them within a second."""
        if self._closed:
            return
        self._closed = True
        if self.state == "connected" and self._connection.sctp is not None:
            try:
                async with asyncio.timeout(_LAST_WORDS_S):
                    await self._part(last_words)
            except TimeoutError:
                logger("webrtc").debug("a browser did not take our last words")
        self._connection.remove_all_listeners()
        await self._connection.close()
        if self._outlet is not None:
            self._outlet.stop()

    async def _part(self, last_words: Sequence[str]) -> None:
        """Returns when nothing waits on the channel, or there is no channel any more."""
        if last_words:
            await self._channel_up.wait()
        channel = self._channel
        if channel is None or channel.readyState != "open":
            return
        drained = asyncio.Event()
        channel.on("bufferedamountlow", drained.set)
        channel.on("close", drained.set)
        for text in last_words:
            channel.send(text)
        while channel.readyState == "open" and channel.bufferedAmount:
            drained.clear()
            await drained.wait()

    def _heard(self, sequence: int, timestamp: int, payload: bytes) -> None:
        if payload:
            self.on_packet(sequence, timestamp, payload)

    def _changed(self) -> None:
        self.on_state(self.state)

    def _opened(self, channel: Any) -> None:
        if self._channel is not None and channel.label != CHANNEL:
            return
        self._channel = channel
        self._channel_up.set()
        channel.on("message", self._told)
        self.on_channel()

    def _told(self, message: str | bytes) -> None:
        if isinstance(message, str):
            try:
                self.on_text(message)
            except Exception:
                logger("webrtc").exception("a message of a browser failed")


def _tap(receiver: RTCRtpReceiver, take: Callable[[int, int, bytes], None]) -> None:
    name = "_RTCRtpReceiver__jitter_buffer"
    if not hasattr(receiver, name):
        raise RuntimeError("this aiortc keeps its packets elsewhere; see docs/decisions/0017")
    setattr(receiver, name, _Tap(take))


def _servers(servers: Sequence[IceServer]) -> list[RTCIceServer]:
    return [
        RTCIceServer(
            urls=list(server.urls),
            username=server.username or None,
            credential=os.environ.get(server.password_env, "") or None if server.password_env else None,
        )
        for server in servers
    ]


def _with_fec(sdp: str, payload_type: int, codec: table.Codec) -> str:
    """The answer, asking for FEC (RFC 7587, 6.1): aiortc's own says nothing about Opus."""
    if codec.encoding != "opus" or f"a=fmtp:{payload_type} " in sdp:
        return sdp
    rtpmap = f"a=rtpmap:{payload_type} {codec.rtpmap}"
    return sdp.replace(rtpmap, f"{rtpmap}\r\na=fmtp:{payload_type} minptime=10;useinbandfec=1", 1)
