"""Who is asked, who is asked instead, and for how long one that failed is asked last."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from wyoming.event import Event
from wyoming.ping import Ping, Pong

from sipserver.errors import ModelMissing
from sipserver.speech import peers as peers_module
from sipserver.speech.peers import FIRST_REST_S, Peers, Unreachable
from sipserver.speech.wire import Wish
from sipserver.speech.worker.server import SpeechServer
from tests.fakes.speech_host import FakeHost
from tests.servers.speech import SpeechProcess

PING, PONG = Ping().event(), Pong().event().type


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[SpeechProcess]:
    process = SpeechProcess(tmp_path / "worker", {}, fake=True)
    process.start()
    yield process
    process.stop()


def gone(folder: Path) -> str:
    return f"unix://{folder}/gone.sock"


async def test_whoever_answers_is_asked(worker: SpeechProcess, tmp_path: Path) -> None:
    peers = Peers([gone(tmp_path), worker.uri])
    for _ in range(3):
        assert (await peers.ask("test", PING, PONG, 5)).type == PONG
    assert peers.lost <= 1
    assert peers.in_use == 0


async def test_nobody_there(tmp_path: Path) -> None:
    peers = Peers([gone(tmp_path)])
    with pytest.raises(Unreachable):
        await peers.ask("test", PING, PONG, 5)
    assert (peers.ready, peers.lost) == (False, 1)
    with pytest.raises(Unreachable):
        await Peers([]).ask("test", PING, PONG, 5)


async def test_the_one_with_the_least_of_our_work_comes_first() -> None:
    peers = Peers(["tcp://127.0.0.1:1", "tcp://127.0.0.1:2", "tcp://127.0.0.1:3"])
    first, second, third = peers.order()
    first.in_use, second.in_use = 2, 1
    assert peers.order() == [third, second, first]
    third.failed("test")
    assert peers.order() == [second, first, third]
    third.works()
    assert peers.order()[0] is third


async def test_who_fails_again_and_again_rests_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr(peers_module, "time", SimpleNamespace(monotonic=lambda: now_s))
    (peer,) = Peers(["tcp://127.0.0.1:1"]).order()
    rests = []
    for _ in range(6):
        peer.failed("test")
        peer.failed("the same again")
        began_s = now_s
        while not peer.well:
            now_s += 0.25
        rests.append(now_s - began_s)
    assert rests == [FIRST_REST_S, 2, 4, 8, 10, 10]
    assert peer.lost == 6
    peer.works()
    peer.failed("test")
    now_s += FIRST_REST_S
    assert peer.well


async def test_one_that_stands_still_does_not_hold_up_loading(
    worker: SpeechProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers_module, "GRACE_S", 0.1)
    still = SpeechProcess(tmp_path / "still", {}, fake=True)
    still.start()
    still.pause()
    try:
        told = await asyncio.wait_for(Peers([still.uri, worker.uri]).load(Wish(vad=True), 60), 10)
        assert "whisper" in told.data["engines"]["stt"]
    finally:
        still.stop()


async def test_what_one_cannot_load_is_told(tmp_path: Path, worker: SpeechProcess) -> None:
    host = FakeHost()
    host.refuses = ModelMissing("base", "sipserver models install base")
    server = SpeechServer(host)
    uri = f"unix://{tmp_path}/speech.sock"
    await server.listen(uri)
    with pytest.raises(ModelMissing):
        await Peers([worker.uri, uri]).load(Wish(stt=("german",)), 10)
    with pytest.raises(Unreachable):
        await Peers([gone(tmp_path)]).load(Wish(), 10)
    await server.close()
    await host.close()


async def test_a_server_that_speaks_another_protocol(free_port: int) -> None:
    async def babble(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", free_port)
    with pytest.raises(Unreachable):
        await Peers([f"tcp://127.0.0.1:{free_port}"]).ask("test", Event("describe"), "info", 5)
    server.close()
    await server.wait_closed()
