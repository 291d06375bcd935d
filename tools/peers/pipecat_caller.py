"""A caller of Pipecat's own parts, in a carrier's place: its WebSocket client, its Twilio or Vonage serializer, and a
pipeline that says a tone, then ends, and keeps what it hears.

usage: build/pipecat/venv/bin/python tools/peers/pipecat_caller.py --url WS --protocol twilio|vonage --heard FILE \
           [--seconds 3] < OPENING
OPENING: the messages that begin the call, JSON, one a line: `connected` and `start` with what the webhook answered.
What is heard goes to FILE, 16 bit samples at the rate of the pipeline (8 kHz for Twilio, 16 kHz for Vonage). Runs in
build/pipecat/venv (requirements/pipecat.txt), which has nothing of ours.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import struct
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("LOGURU_LEVEL", "WARNING")

from pipecat.frames.frames import (
    EndFrame,
    Frame,
    InputAudioRawFrame,
    OutputAudioRawFrame,
    OutputTransportMessageUrgentFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.serializers.base_serializer import FrameSerializer
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.serializers.vonage import VonageFrameSerializer
from pipecat.transports.websocket.client import WebsocketClientParams, WebsocketClientTransport
from pipecat.workers.runner import WorkerRunner

RATES_HZ = {"twilio": 8000, "vonage": 16_000}
TONE_HZ, FRAME_S = 440, 0.02
SHARE, PATIENCE_S = 0.8, 10.0
"""Of the tone that is to come back, and how long that may take."""


class Ear(FrameProcessor):
    """Keeps what comes in; the rest passes. enough: so many bytes of it have come."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.heard, self.enough, self._most = bytearray(), asyncio.Event(), most

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            self.heard += frame.audio
            if len(self.heard) >= self._most:
                self.enough.set()
        else:
            await self.push_frame(frame, direction)


def tone(rate_hz: int, seconds: float) -> list[OutputAudioRawFrame]:
    count = round(rate_hz * FRAME_S)
    wave = [
        round(8000 * math.sin(2 * math.pi * TONE_HZ * at / rate_hz)) for at in range(round(seconds / FRAME_S) * count)
    ]
    return [
        OutputAudioRawFrame(struct.pack(f"<{count}h", *wave[at : at + count]), rate_hz, 1)
        for at in range(0, len(wave), count)
    ]


def serializer_of(protocol: str, opening: list[dict[str, Any]]) -> FrameSerializer:
    if protocol == "vonage":
        return VonageFrameSerializer()
    params = TwilioFrameSerializer.InputParams(auto_hang_up=False)
    return TwilioFrameSerializer(opening[-1]["streamSid"], params=params)


async def call(url: str, protocol: str, opening: list[dict[str, Any]], seconds: float) -> bytes:
    rate_hz = RATES_HZ[protocol]
    ear = Ear(round(rate_hz * seconds * SHARE) * 2)
    transport = WebsocketClientTransport(
        url,
        WebsocketClientParams(
            audio_in_enabled=True,
            audio_out_enabled=True,
            audio_out_10ms_chunks=2,
            add_wav_header=False,
            serializer=serializer_of(protocol, opening),
        ),
    )
    worker = PipelineWorker(
        Pipeline([transport.input(), ear, transport.output()]),
        params=PipelineParams(audio_in_sample_rate=rate_hz, audio_out_sample_rate=rate_hz),
        idle_timeout_secs=None,
        enable_rtvi=False,
        enable_turn_tracking=False,
    )
    await worker.queue_frames([*map(OutputTransportMessageUrgentFrame, opening), *tone(rate_hz, seconds)])
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    ends = asyncio.create_task(end(worker, ear, seconds + PATIENCE_S))
    await runner.run()
    await ends
    return bytes(ear.heard)


async def end(worker: PipelineWorker, ear: Ear, timeout_s: float) -> None:
    """When enough was heard: an EndFrame stops the ear at once, though the tone behind it is still being said."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(ear.enough.wait(), timeout_s)
    await worker.queue_frame(EndFrame())


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--url", required=True)
    arguments.add_argument("--protocol", choices=sorted(RATES_HZ), required=True)
    arguments.add_argument("--heard", type=Path, required=True)
    arguments.add_argument("--seconds", type=float, default=3.0)
    given = arguments.parse_args()
    opening = [json.loads(line) for line in sys.stdin if line.strip()]
    given.heard.write_bytes(asyncio.run(call(given.url, given.protocol, opening, given.seconds)))


if __name__ == "__main__":
    main()
