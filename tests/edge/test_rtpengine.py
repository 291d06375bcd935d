"""The relay's process under control: started, found again, watched, counted, stopped."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sipserver.edge import ng
from sipserver.edge.rtpengine import Rtpengine, config_file, log_file, pid_file, render
from sipserver.edge.settings import RtpengineSettings
from sipserver.errors import SettingsError
from tests.servers.rtpengine import relay_settings

DEADLINE_S = 10


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[Rtpengine]:
    server = Rtpengine(relay_settings(), tmp_path)
    await server.start()
    yield server
    await server.stop()


async def test_it_runs_answers_and_counts(relay: Rtpengine) -> None:
    assert relay.pid is not None
    assert not relay.adopted
    assert await relay.alive()
    statistics = await relay.statistics()
    assert (statistics.calls, statistics.packets, statistics.timeouts) == (0, 0, 0)


async def test_it_counts_a_call(relay: Rtpengine, tmp_path: Path) -> None:
    control = next(
        line.partition("= ")[2] for line in config_file(tmp_path).read_text().splitlines() if "listen-ng" in line
    )
    sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\n"
    call = {"call-id": "1", "from-tag": "a"}
    await ng.ask(control, "offer", {**call, "sdp": sdp, "direction": ["outside", "inside"]})
    assert (await relay.statistics()).calls == 1
    await ng.ask(control, "delete", call)
    after = await relay.statistics()
    assert (after.calls, after.calls_total) == (0, 1)


async def test_the_next_supervisor_adopts_it(relay: Rtpengine, tmp_path: Path) -> None:
    settings = relay._settings
    pid = relay.pid
    await relay.leave()
    heir = Rtpengine(settings, tmp_path)
    await heir.start()
    assert heir.adopted
    assert heir.pid == pid
    await heir.stop()
    assert not await heir.alive(0.2)


async def test_one_that_does_not_answer_is_replaced(relay: Rtpengine, tmp_path: Path) -> None:
    deaf = relay.pid
    heir = Rtpengine(relay_settings(), tmp_path)  # asks at another address than the old one listens at
    await heir.start()
    try:
        assert not heir.adopted
        assert heir.pid != deaf
        await asyncio.wait_for(relay.exited(), DEADLINE_S)
    finally:
        await heir.stop()


async def test_a_running_one_keeps_its_settings(relay: Rtpengine, tmp_path: Path) -> None:
    changed = relay._settings.model_copy(update={"ports": (20_000, 20_100)})
    heir = Rtpengine(changed, tmp_path)
    await heir.start()
    assert heir.adopted
    assert heir.pid == relay.pid
    assert "20100" not in config_file(tmp_path).read_text()
    await heir.leave()


@pytest.mark.parametrize("content", ["", "no number", "999999999", f"{os.getpid()}"])
async def test_a_stale_pid_file_adopts_nobody(tmp_path: Path, content: str) -> None:
    pid_file(tmp_path).write_text(content)
    stranger = Rtpengine(relay_settings(), tmp_path)
    assert not await stranger.adopt()
    await stranger.stop()
    os.kill(os.getpid(), 0)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_its_end_is_noticed_at_once(relay: Rtpengine, number: signal.Signals) -> None:
    assert relay.pid is not None
    waiting = asyncio.create_task(relay.exited())
    await asyncio.sleep(0)
    assert not waiting.done()
    os.kill(relay.pid, number)
    await asyncio.wait_for(waiting, DEADLINE_S)
    assert not await relay.alive(0.2)


async def test_the_end_of_an_adopted_one_is_noticed_too(relay: Rtpengine, tmp_path: Path) -> None:
    heir = Rtpengine(relay._settings, tmp_path)
    assert await heir.adopt()
    assert heir.pid is not None
    os.kill(heir.pid, signal.SIGKILL)
    await asyncio.wait_for(heir.exited(), DEADLINE_S)
    await heir.stop()


async def test_a_paused_one_is_not_alive_and_can_be_stopped(relay: Rtpengine) -> None:
    assert relay.pid is not None
    os.kill(relay.pid, signal.SIGSTOP)
    async with asyncio.timeout(DEADLINE_S):
        while await relay.alive(0.2):  # its threads stop one after the other
            pass
    await relay.stop(0.2)
    assert relay.pid is None


async def test_it_starts_again_after_its_end(relay: Rtpengine) -> None:
    assert relay.pid is not None
    first = relay.pid
    os.kill(first, signal.SIGKILL)
    await asyncio.wait_for(relay.exited(), DEADLINE_S)
    await relay.start()
    assert relay.pid not in (None, first)
    assert await relay.alive()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"program": "/nowhere/rtpengine"}, "cannot start"),
        ({"interfaces": ("outside/192.0.2.77", "inside/127.0.0.1")}, "192.0.2.77"),
        ({"control": "192.0.2.77:2223"}, "does not answer"),
    ],
)
async def test_what_cannot_run_is_told(tmp_path: Path, changes: dict[str, object], reason: str) -> None:
    server = Rtpengine(relay_settings(**changes), tmp_path)
    with pytest.raises(SettingsError, match=reason):
        await server.start(timeout_s=3)
    assert server.pid is None


async def test_its_words_become_lines_of_our_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = Rtpengine(relay_settings(), tmp_path)
    await server.start()
    try:
        with log_file(tmp_path).open("a") as log:
            log.write("[1.5] WARNING: [1234]: [core] something is odd\n")
        async with asyncio.timeout(DEADLINE_S):
            while "something is odd" not in (said := "".join(capsys.readouterr())):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert "warning" in said
    finally:
        await server.stop()


@pytest.mark.parametrize(("strict", "learning"), [(True, "off"), (False, "heuristic")])
def test_a_strict_relay_learns_no_address(tmp_path: Path, strict: bool, learning: str) -> None:
    text = render(RtpengineSettings(strict_source=strict), tmp_path)
    assert f"endpoint-learning = {learning}\n" in text
    assert "table = -1\n" in text


def test_several_interfaces_stand_in_one_line(tmp_path: Path) -> None:
    interfaces = ("outside/10.0.0.5!203.0.113.7", "outside/2001:db8::1", "inside/127.0.0.1")
    text = render(RtpengineSettings(interfaces=interfaces), tmp_path)
    assert f"interface = {';'.join(interfaces)}\n" in text


@pytest.mark.parametrize(
    "wrong",
    [
        {"interfaces": ("127.0.0.1",)},
        {"interfaces": ("outside/127.0.0.1",)},
        {"interfaces": ("outside/127.0.0.1", "inside/127.0.0.1", "third/127.0.0.1")},
        {"ports": (50_000, 40_000)},
        {"ports": (80, 40_000)},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must"):
        RtpengineSettings.model_validate(wrong)
