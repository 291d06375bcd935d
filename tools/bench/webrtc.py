"""Browsers at once: what a session costs the server, and how long sound takes there and back.

`python -m tools.bench.webrtc [sessions] [seconds]`. The server is this process; the callers are one other process with
aiortc, or one page of a headless Chromium for the round trip (`--chromium`). Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from sipserver import log
from tests.servers.browser import chromium, sound_file
from tests.webrtc.rig import Browser, Call, Site, site

MARKER = """async (count) => {
    // the page's own sound and what comes back, at one clock: a burst out, the same burst in
    const context = new AudioContext({latencyHint: "interactive"})
    const source = context.createMediaStreamDestination()
    // a source without any sound sends nothing, unlike a microphone
    const hum = new GainNode(context, {gain: 0.001})
    const hummed = new OscillatorNode(context, {frequency: 200})
    hummed.connect(hum).connect(source)
    hummed.start()
    const peer = new RTCPeerConnection()
    peer.addTrack(source.stream.getAudioTracks()[0], source.stream)
    const track = new Promise((done) => { peer.ontrack = (event) => done(event.track) })
    await peer.setLocalDescription(await peer.createOffer())
    await new Promise((done) => {
        const look = () => peer.iceGatheringState === "complete" && done()
        peer.onicegatheringstatechange = look
        look()
    })
    const headers = {"Content-Type": "application/sdp", "Authorization": "Bearer " + window.token}
    const answer = await fetch("/webrtc/demo", {method: "POST", headers, body: peer.localDescription.sdp})
    await peer.setRemoteDescription({type: "answer", sdp: await answer.text()})
    const sink = new Audio()
    sink.muted = true
    sink.srcObject = new MediaStream([await track])
    const worklet = `registerProcessor("ear", class extends AudioWorkletProcessor {
        process(inputs) {
            const sound = inputs[0][0]
            if (sound) for (let i = 0; i < sound.length; i++)
                if (Math.abs(sound[i]) > 0.1) { this.port.postMessage((currentFrame + i) / sampleRate); break }
            return true
        }
    })`
    await context.audioWorklet.addModule(URL.createObjectURL(new Blob([worklet], {type: "text/javascript"})))
    const ear = new AudioWorkletNode(context, "ear")
    context.createMediaStreamSource(sink.srcObject).connect(ear).connect(context.destination)
    const trips = []
    await new Promise((done) => setTimeout(done, 3000))
    for (let i = 0; i < count; i++) {
        const at = context.currentTime + 0.1
        const beep = context.createOscillator()
        beep.frequency.value = 1000
        beep.connect(source)
        beep.start(at)
        beep.stop(at + 0.05)
        const heard = await new Promise((done) => {
            const limit = setTimeout(() => done(null), 2000)
            ear.port.onmessage = ({data}) => { if (data > at) { clearTimeout(limit); done(data) } }
        })
        if (heard !== null) trips.push((heard - at) * 1000)
        await new Promise((done) => setTimeout(done, 400 + 37 * (i % 5)))
    }
    peer.close()
    return trips
}"""


async def callers(url: str, tokens: list[str], seconds: float) -> None:
    """What the other process does: call, talk, count what comes back, hang up."""
    browsers = [Browser(300 + 20 * at) for at in range(len(tokens))]
    remote: Any = Remote(url)
    async with remote:
        for one, token in zip(browsers, tokens, strict=True):
            response = await one.call(remote, token=token)
            assert response.status == 201, await response.text()
        print("up", flush=True)
        await asyncio.sleep(seconds)
        good = sum(one.level(300 + 20 * at) > 0.7 for at, one in enumerate(browsers))
        print(json.dumps({"good": good}), flush=True)
        await asyncio.gather(*(one.close() for one in browsers))


class Remote:
    """As much of a `Site` as a browser of another process needs."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def __aenter__(self) -> Remote:
        import aiohttp

        self.session = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()


def decoding(call: Call) -> None:
    """All of the work: jitter buffer, decode, encode. What the listener gets is played as an agent's words are."""
    clip = call.leg.playout.begin("echo")
    call.leg.attach(call.events.append, lambda heard, _: clip.write_now(heard.samples))


def looping(call: Call) -> None:
    call.leg.hear(False)
    call.leg.loop_back(True)


async def cpu(sessions: int, seconds: float, way: Any) -> dict[str, Any]:
    from sipserver.webrtc.settings import WebRtcSettings

    async with site(WebRtcSettings(calls=sessions, ice_s=30), way) as there:
        tokens = [there.token() for _ in range(sessions)]
        command = [sys.executable, "-m", "tools.bench.webrtc", "--callers", there.url, str(seconds)]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(tokens).encode() + b"\n")
        async with asyncio.timeout(60 + seconds):
            assert (await process.stdout.readline()).strip() == b"up"
            began, clock = resource.getrusage(resource.RUSAGE_SELF), asyncio.get_running_loop().time
            began_s = clock()
            said = await process.stdout.readline()
            ended, took_s = resource.getrusage(resource.RUSAGE_SELF), clock() - began_s
            await process.wait()
    used_s = ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime
    return {"sessions": sessions, "cpu_percent": round(100 * used_s / took_s, 1), **json.loads(said)}


async def round_trip(count: int, way: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        quiet = sound_file(Path(folder) / "quiet.wav", np.zeros(48_000, np.int16), 48_000)
        async with site(on_call=way) as there, chromium(quiet) as browser:
            trips = await _trips(there, browser, count)
    return {"trips": len(trips), "p50_ms": round(statistics.median(trips), 1), "max_ms": round(max(trips), 1)}


async def _trips(there: Site, browser: Any, count: int) -> list[float]:
    page = await browser.new_page()
    await page.goto(f"{there.url}/page")
    await page.evaluate("token => { window.token = token }", there.token())
    trips: list[float] = await page.evaluate(MARKER, count)
    return trips


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--callers", nargs=2)
    parser.add_argument("sessions", type=int, nargs="?", default=20)
    parser.add_argument("seconds", type=float, nargs="?", default=10)
    given = parser.parse_args()
    log.setup("warning")
    if given.callers:
        await callers(given.callers[0], json.loads(sys.stdin.readline()), float(given.callers[1]))
        return
    found = {
        "looped": await cpu(given.sessions, given.seconds, looping),
        "decoded": await cpu(given.sessions, given.seconds, decoding),
        "looped_trip": await round_trip(20, looping),
        "decoded_trip": await round_trip(20, decoding),
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    asyncio.run(main())
