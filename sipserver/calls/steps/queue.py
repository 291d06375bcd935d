"""queue and serve: callers wait for agents, who are called or have dialled in themselves.

Whatever becomes of an agent who is tried, the caller keeps their place until they talk with one. All of it happens in
one process: callers and agents who came to another cell of a fleet are in another queue of the same name.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from sipserver.audio import tones
from sipserver.audio.frame import Samples
from sipserver.calls.desk import Desk
from sipserver.calls.join import Partner, joined
from sipserver.calls.music import Music
from sipserver.calls.outbound import Outcome
from sipserver.calls.queues import Agent, Line, Server, Waiter
from sipserver.calls.ringing import ringing
from sipserver.calls.scene import Left, Scene
from sipserver.calls.steps import placing
from sipserver.calls.steps.bridge import ENDINGS
from sipserver.calls.steps.sound import speak
from sipserver.dialplan import steps
from sipserver.dialplan.queues import QueueSpec
from sipserver.dialplan.steps.gatherings import POSITION
from sipserver.errors import ProviderError
from sipserver.events import QueueConnected, QueueOffered, QueueServed

COMES_DBM0 = -22.0
"""The tone by which an agent who has dialled in learns that a caller comes."""


async def queue(step: steps.Queue, scene: Scene) -> Left:
    call, spec = scene.call, scene.plan.queues[step.name]
    samples = await placing.sound(step, scene)
    line = call.services.queues.line(call.tenant, step.name, spec)
    if not line.servers and (not spec.agents or call.services.outbound is None):
        call.services.queues.tidy(line)
        return Left("empty")
    if line.full:
        return Left("full")
    with line.waiting(call) as waiter:
        return await _Visit(step, scene, line, spec, waiter, samples).run()


async def serve(step: steps.Serve, scene: Scene) -> Left:
    """The agent's callers do the rest. The key ends it also during the pause after a call."""
    call = scene.call
    samples = await placing.sound(step, scene)
    music = Music(call.leg.playout, np.zeros(0, np.int16) if samples is None else samples, f"serve: {step.queue}")
    line = call.services.queues.line(call.tenant, step.queue, scene.plan.queues[step.queue])
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def serves() -> None:
        music.stop()
        clip = call.leg.playout.begin("a caller comes")
        clip.write_now(tones.tone((440,), 150, (COMES_DBM0,)))
        clip.finish()

    def press(digit: str) -> None:
        if digit == step.exit and not server.with_caller and not done.done():
            done.set_result(None)

    try:
        with line.serving(call, rests=music.start, serves=serves) as server, call.digits.handed_to(press):
            await done
    finally:
        await music.close()
    return Left()


class _Visit:
    """One caller's time in a queue. Loop thread."""

    def __init__(
        self, step: steps.Queue, scene: Scene, line: Line, spec: QueueSpec, waiter: Waiter, samples: Samples | None
    ) -> None:
        self._step, self._scene, self._line, self._spec, self._waiter = step, scene, line, spec, waiter
        self._call = scene.call
        self._samples = samples
        self._limit = asyncio.timeout(step.max_wait_s)
        self._why = "timeout"

    async def run(self) -> Left:
        try:
            async with self._limit:
                with self._call.digits.handed_to(self._press):
                    return await self._until_served()
        except TimeoutError:
            self._waiter.reason = self._why
            return Left(self._why)

    async def _until_served(self) -> Left:
        async with _waiting(self._step, self._scene, self._waiter, self._samples) as sound:
            while True:
                offer = await self._waiter.offer()
                left = await (
                    self._with_server(offer, sound) if isinstance(offer, Server) else self._with_agents(offer, sound)
                )
                if left is not None:
                    return left

    async def _with_agents(self, agents: tuple[Agent, ...], sound: _Sound) -> Left | None:
        """None: nobody answered, or somebody who has dialled in is free now."""
        waiter = self._waiter
        for agent in agents:
            self._call.emit(QueueOffered(queue=self._line.name, agent=agent.to, waited_ms=waiter.waited_ms))
        try:
            async with ringing(
                self._call, self._line, agents, trunk=self._spec.trunk, ring_s=self._spec.ring_s
            ) as rung:
                offers: set[asyncio.Future[Any]] = {rung.won, waiter.server}
                await asyncio.wait(offers, return_when=asyncio.FIRST_COMPLETED)
                rung.decide()
                won = rung.won.result()
                if won is not None:
                    agent, party = won
                    await self._call.answer()
                    return await self._talk(party, agent.to, sound)
        finally:
            waiter.rings = False
        return None

    async def _with_server(self, server: Server, sound: _Sound) -> Left | None:
        """None: the agent was gone before the two could talk."""
        agent = server.call.leg.offer.from_user
        self._call.emit(QueueOffered(queue=self._line.name, agent=agent, waited_ms=self._waiter.waited_ms))
        began_ms: int | None = None
        try:
            await self._call.answer()
            if server.gone:
                return None
            began_ms = server.call.at_ms
            caller = self._call.leg.offer.from_user
            server.call.emit(QueueConnected(self._line.name, caller, self._waiter.waited_ms, self._call.id))
            return await self._talk(Desk(self._call, server), agent, sound, server.call.id)
        finally:
            if began_ms is not None:
                lasted_ms = server.call.at_ms - began_ms
                server.call.emit(QueueServed(queue=self._line.name, call=self._call.id, lasted_ms=lasted_ms))
            server.release(self._spec.wrapup_s if began_ms is not None else 0.0)

    async def _talk(self, partner: Partner, agent: str, sound: _Sound, call_id: str = "") -> Left:
        if not self._limit.expired():
            self._limit.reschedule(None)
        sound.stop()
        self._waiter.connected()
        self._call.emit(QueueConnected(self._line.name, agent, self._waiter.waited_ms, call_id))
        rtp_timeout_s = self._call.services.settings.media_timeout_s
        async with joined(self._call, partner, music=self._samples, rtp_timeout_s=rtp_timeout_s) as join:
            if isinstance(partner, Desk):
                partner.server.left = lambda: join.end("party_hangup")
            reason = await join.over()
        return placing.left(Outcome.ANSWERED, reason=ENDINGS.get(reason))

    def _press(self, digit: str) -> None:
        """The exit key, as long as the caller waits."""
        if digit == self._step.exit and self._waiter.connected_s is None and not self._limit.expired():
            self._why = "abandoned"
            self._limit.reschedule(asyncio.get_running_loop().time())


class _Sound:
    """What a caller hears while they wait: music, and their position now and then."""

    def __init__(self, step: steps.Queue, scene: Scene, waiter: Waiter, samples: Samples | None) -> None:
        self._step, self._scene, self._waiter = step, scene, waiter
        samples = np.zeros(0, np.int16) if samples is None else samples
        self._music = Music(scene.call.leg.playout, samples, f"queue: {step.name}")
        self._task = asyncio.create_task(self._play(), name=f"waiting of {scene.call.id}")

    def stop(self) -> None:
        self._task.cancel()
        self._music.stop()

    async def close(self) -> None:
        self.stop()
        await asyncio.wait({self._task})
        await self._music.close()

    async def _play(self) -> None:
        step, every_s = self._step, self._step.position_say_every_s
        while True:
            if step.position_say and every_s:
                self._music.stop()
                await self._say_position()
            self._music.start()
            await asyncio.sleep(every_s or step.max_wait_s)

    async def _say_position(self) -> None:
        step, scene = self._step, self._scene
        scene.set(POSITION, str(self._waiter.position))
        try:
            await speak(scene, step.position_say, tts=step.tts, voice=step.voice, language=step.language)
        except ProviderError as problem:
            scene.failed("queue", problem)


@asynccontextmanager
async def _waiting(step: steps.Queue, scene: Scene, waiter: Waiter, samples: Samples | None) -> AsyncIterator[_Sound]:
    sound = _Sound(step, scene, waiter, samples)
    try:
        yield sound
    finally:
        await sound.close()
