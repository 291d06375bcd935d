"""A bot of Pipecat's own parts that says back what it hears: its telephony detection, its Twilio or Vonage serializer,
its FastAPI transport, and a pipeline with one processor.

usage: build/pipecat/venv/bin/python tools/peers/pipecat_echo.py --port PORT [--rate 8000|16000]
`/ws` speaks Twilio's Media Streams, `/vonage` Vonage's. Prints `ready` when it listens; ends with SIGTERM. Runs in
build/pipecat/venv (requirements/pipecat.txt), which has nothing of ours.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

os.environ.setdefault("LOGURU_LEVEL", "WARNING")

import uvicorn
from fastapi import FastAPI, WebSocket
from pipecat.frames.frames import Frame, InputAudioRawFrame, OutputAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.runner.utils import parse_telephony_websocket
from pipecat.serializers.base_serializer import FrameSerializer
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.serializers.vonage import VonageFrameSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.workers.runner import WorkerRunner


class Echo(FrameProcessor):
    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            frame = OutputAudioRawFrame(frame.audio, frame.sample_rate, frame.num_channels)
        await self.push_frame(frame, direction)


async def converse(socket: WebSocket, serializer: FrameSerializer, rate_hz: int) -> None:
    transport = FastAPIWebsocketTransport(
        socket,
        FastAPIWebsocketParams(
            audio_in_enabled=True,
            audio_out_enabled=True,
            audio_out_10ms_chunks=2,
            add_wav_header=False,
            serializer=serializer,
        ),
    )
    worker = PipelineWorker(
        Pipeline([transport.input(), Echo(), transport.output()]),
        params=PipelineParams(audio_in_sample_rate=rate_hz, audio_out_sample_rate=rate_hz),
        idle_timeout_secs=None,
        enable_rtvi=False,
        enable_turn_tracking=False,
    )

    @transport.event_handler("on_client_disconnected")
    async def gone(_transport: object, _socket: object) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


def app(rate_hz: int) -> FastAPI:
    server = FastAPI()

    @server.websocket("/ws")
    async def twilio(socket: WebSocket) -> None:
        await socket.accept()
        kind, call = await parse_telephony_websocket(socket)
        if kind != "twilio":
            sys.exit(f"Pipecat takes this for {kind}")
        params = TwilioFrameSerializer.InputParams(auto_hang_up=False)
        await converse(
            socket, TwilioFrameSerializer(call["stream_id"], call_sid=call["call_id"], params=params), rate_hz
        )

    @server.websocket("/vonage")
    async def vonage(socket: WebSocket) -> None:
        await socket.accept()
        await converse(socket, VonageFrameSerializer(), rate_hz)

    return server


class Ready(uvicorn.Server):
    async def startup(self, sockets: list[Any] | None = None) -> None:
        await super().startup(sockets)
        print("ready", flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("--rate", type=int, default=8000)
    given = arguments.parse_args()
    Ready(uvicorn.Config(app(given.rate), host="127.0.0.1", port=given.port, log_level="warning")).run()


if __name__ == "__main__":
    main()
