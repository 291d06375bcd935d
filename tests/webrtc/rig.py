"""A WebRTC server behind a real HTTP port, and browsers of aiortc that call it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import aiohttp
import numpy as np
from aiohttp import web
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamTrack
from av import AudioFrame

from sipserver.api.metrics import Metrics
from sipserver.api.server import application
from sipserver.audio.frame import Frame, Samples
from sipserver.bus.once import MemoryOnce
from sipserver.events import Event
from sipserver.gate.gate import Gate
from sipserver.gate.settings import GateSettings
from sipserver.gate.tokens import Claims, Tokens
from sipserver.webrtc.leg import BrowserLeg
from sipserver.webrtc.server import WebRtcServer
from sipserver.webrtc.settings import WebRtcSettings

T = TypeVar("T", bound=Event)

SECRET = b"a secret of at least thirty-two bytes"
PAGE = "<!doctype html><title>test</title>"


class Call:
    """A leg that came, what it told, and what its listener got."""

    def __init__(self, leg: BrowserLeg, claims: Claims) -> None:
        self.leg, self.claims = leg, claims
        self.events: list[Event] = []
        self.media: list[tuple[Frame, Frame]] = []
        leg.attach(self.events.append, lambda heard, played: self.media.append((heard, played)))

    def of(self, kind: type[T]) -> list[T]:
        return [event for event in self.events if isinstance(event, kind)]

    def heard(self) -> Samples:
        frames = [heard.samples for heard, _ in self.media]
        return np.concatenate(frames) if frames else np.zeros(0, np.int16)


class Site:
    def __init__(self, settings: WebRtcSettings, on_call: Callable[[Call], None] | None) -> None:
        self.tokens = Tokens(SECRET, MemoryOnce())
        self.gate = Gate(GateSettings(), self.tokens)
        self.server = WebRtcServer(settings, self.gate, self._accept)
        self.calls: asyncio.Queue[Call] = asyncio.Queue()
        self.all: list[Call] = []
        self.session = aiohttp.ClientSession()
        self._on_call = on_call
        routes = [*self.server.routes(), web.get("/page", _page)]
        self._runner = web.AppRunner(application(lambda: (), Metrics(), routes=routes), shutdown_timeout=1)
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def token(self, to: str = "demo", **fields: Any) -> str:
        return self.tokens.issue(Claims("webrtc", to=to, **fields))

    def _accept(self, leg: BrowserLeg, claims: Claims) -> None:
        call = Call(leg, claims)
        if self._on_call is not None:
            self._on_call(call)
        self.all.append(call)
        self.calls.put_nowait(call)

    async def start(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        await self.server.close()
        await self.gate.close_all()
        await self.session.close()
        await self._runner.cleanup()


async def _page(_request: web.Request) -> web.Response:
    return web.Response(text=PAGE, content_type="text/html", headers={"Content-Security-Policy": ""})


@contextlib.asynccontextmanager
async def site(
    settings: WebRtcSettings | None = None, on_call: Callable[[Call], None] | None = None
) -> AsyncIterator[Site]:
    there = Site(settings or WebRtcSettings(), on_call)
    await there.start()
    try:
        yield there
    finally:
        await there.stop()


class Tone(MediaStreamTrack):
    """A tone of so many Hz, 48 kHz, in real time."""

    kind = "audio"

    def __init__(self, hz: float) -> None:
        super().__init__()
        self._hz, self._sent, self._began_s = hz, 0, 0.0

    async def recv(self) -> AudioFrame:
        loop = asyncio.get_running_loop()
        self._began_s = self._began_s or loop.time()
        await asyncio.sleep(max(0.0, self._began_s + self._sent / 48_000 - loop.time()))
        at = np.arange(self._sent, self._sent + 960)
        samples = (8000 * np.sin(2 * np.pi * self._hz * at / 48_000)).astype(np.int16)
        frame = AudioFrame.from_ndarray(samples[np.newaxis, :], format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48_000, self._sent
        self._sent += 960
        return frame


class Browser:
    """aiortc as the calling page."""

    def __init__(self, hz: float = 440, *, channel: bool = True) -> None:
        self.connection = RTCPeerConnection()
        self.connection.addTrack(Tone(hz))
        self.heard: list[Any] = []
        self.shown: list[dict[str, Any]] = []
        self.location = self.etag = ""
        self._tasks: list[asyncio.Task[None]] = []
        self.connection.on("track", self._listen)
        self.channel = self.connection.createDataChannel("sipserver") if channel else None
        if self.channel is not None:
            self.channel.on("message", lambda text: self.shown.append(json.loads(text)))

    async def offer(self) -> str:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return str(self.connection.localDescription.sdp)

    async def answered(self, sdp: str) -> None:
        await self.connection.setRemoteDescription(RTCSessionDescription(sdp, "answer"))

    async def call(self, there: Site, to: str = "demo", token: str | None = None) -> aiohttp.ClientResponse:
        response = await post(there, await self.offer(), to, token)
        if response.status == 201:
            self.location, self.etag = response.headers["Location"], response.headers["ETag"]
            await self.answered(await response.text())
        return response

    async def close(self) -> None:
        await self.connection.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def level(self, hz: float) -> float:
        """How much of the last half second that was heard is this tone, 0 to 1."""
        if len(self.heard) < 25:
            return 0.0
        frames = self.heard[-25:]
        samples = np.concatenate([frame.to_ndarray().reshape(-1, len(frame.layout.channels))[:, 0] for frame in frames])
        return share(samples, hz, frames[0].sample_rate)

    def _listen(self, track: Any) -> None:
        self._tasks.append(asyncio.create_task(self._collect(track)))

    async def _collect(self, track: Any) -> None:
        while True:
            self.heard.append(await track.recv())


async def post(
    there: Site, sdp: str | bytes, to: str = "demo", token: str | None = None, content_type: str = "application/sdp"
) -> aiohttp.ClientResponse:
    headers = {"Content-Type": content_type, "Authorization": f"Bearer {there.token(to) if token is None else token}"}
    return await there.session.post(f"{there.url}/webrtc/{to}", data=sdp, headers=headers)


@contextlib.asynccontextmanager
async def browser(hz: float = 440, *, channel: bool = True) -> AsyncIterator[Browser]:
    one = Browser(hz, channel=channel)
    try:
        yield one
    finally:
        await one.close()


def share(samples: Any, hz: float, rate_hz: int) -> float:
    """How much of the sound is this tone."""
    window = np.asarray(samples, np.float64)
    if len(window) < rate_hz // 10 or not window.any():
        return 0.0
    spectrum = np.abs(np.fft.rfft(window * np.hanning(len(window)))) ** 2
    at = round(hz * len(window) / rate_hz)
    return float(spectrum[max(0, at - 3) : at + 4].sum() / spectrum.sum())
