"""Commands over Redis' publish and subscribe: a question goes to the channel of a run, a machine or of all; the answer
comes back to the asker's own.

Owns the one subscribed connection of a process, made when it first serves or asks. Refuses to know what is asked.
`PUBLISH` says how many listen, so that a question to nobody is answered at once. A call has no channel: its lease says
which run it lives in. Nothing is kept for those who are not there.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redis import exceptions
from redis.asyncio.client import PubSub

from sipserver.bus import remote
from sipserver.bus.contract import Handler, Json
from sipserver.bus.link import TIMEOUT_S, Link
from sipserver.bus.redis_leases import RedisLeases
from sipserver.errors import BusDown, NotFound, SipServerError
from sipserver.log import logger

PAUSE_S = 0.2


class RedisCommands:
    def __init__(self, link: Link, leases: RedisLeases, *, run: str) -> None:
        self._link, self._leases, self._run = link, leases, run
        self._log = logger("bus", run=run)
        self._served: dict[str, list[_Served]] = {}
        self._listeners: dict[bytes, Callable[[bytes], None]] = {}
        self._confirmed: dict[bytes, asyncio.Event] = {}
        self._asked: dict[int, asyncio.Future[Json]] = {}
        self._numbers = itertools.count(1)
        self._errands = remote.Errands()
        self._pubsub: PubSub | None = None
        self._subscribing = asyncio.Lock()
        self._listening: asyncio.Task[None] | None = None

    async def close(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        await self._errands.close()

    # --- the contract -------------------------------------------------------------------------------------------------

    async def serve(self, address: str, handler: Handler) -> _Served:
        """While Redis is away it returns all the same, and serves when Redis is back."""
        served = _Served(handler, self._served.setdefault(address, []))
        served.others.append(served)
        if remote.call_of(address):
            address = f"run:{self._run}"
        await self.listen(address, self._heard)
        return served

    async def ask(self, address: str, verb: str, arguments: Json, *, timeout_s: float = 2.0) -> Json:
        number = next(self._numbers)
        answer: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            async with asyncio.timeout(timeout_s):
                if not await self.listen(f"run:{self._run}", self._heard):
                    raise BusDown("Redis is away")
                channel = await self._channel_of(address)
                question = {"q": number, "from": self._run, "to": address, "verb": verb, "arguments": dict(arguments)}
                if not await self._publish(channel, question):
                    raise self._nobody(address)
                return await answer
        except TimeoutError:
            raise remote.late(address, timeout_s) from None
        finally:
            del self._asked[number]

    async def announce(self, verb: str, arguments: Json) -> None:
        try:
            await self._publish("all", {"to": "all", "verb": verb, "arguments": dict(arguments)})
        except BusDown as problem:
            self._log.warning("announcement lost", verb=verb, error=str(problem))

    async def _channel_of(self, address: str) -> str:
        call_id = remote.call_of(address)
        if not call_id:
            return address
        held = await self._leases.get(f"call/{call_id}")
        if held is None or "run" not in held:
            raise self._nobody(address)
        return f"run:{held['run']}"

    def _nobody(self, address: str) -> SipServerError:
        """After an outage those who serve it may not be back yet."""
        if self._link.settled:
            return NotFound(f"nobody serves {address}")
        return BusDown(f"Redis has just come back, and nobody serves {address} yet")

    async def _publish(self, channel: str, message: Json) -> int:
        text = json.dumps(message, separators=(",", ":"), default=str)
        return int(await self._link.do(lambda redis: redis.publish(self._link.key(channel), text)))

    # --- what comes in ------------------------------------------------------------------------------------------------

    def _heard(self, payload: bytes) -> None:
        message = json.loads(payload)
        if "a" in message:
            self._answered(message)
            return
        address, verb, arguments = message["to"], message["verb"], message["arguments"]
        served = self._served.get(address)
        if not served and (call_id := remote.call_of(address)):
            served, arguments = self._served.get(f"run:{self._run}"), {"call_id": call_id, **arguments}
        if "q" not in message:
            for each in tuple(served or ()):
                self._errands.start(remote.answer(each.handler, verb, arguments), f"announced {verb}")
        else:
            handler = served[0].handler if served else None
            self._errands.start(self._reply(message, handler, verb, arguments), f"asked {verb}")

    async def _reply(self, message: Json, handler: Handler | None, verb: str, arguments: Json) -> None:
        answer = {} if handler is None else await remote.answer(handler, verb, arguments)
        try:
            await self._publish(f"run:{message['from']}", {"a": message["q"], "to": message["to"], **answer})
        except BusDown as problem:
            self._log.warning("answer lost", verb=verb, error=str(problem))

    def _answered(self, message: dict[str, Any]) -> None:
        asked = self._asked.get(message["a"])
        if asked is None or asked.done():
            return
        if "answer" not in message and "error" not in message:
            asked.set_exception(NotFound(f"nobody serves {message['to']}"))
            return
        try:
            asked.set_result(remote.unpacked(message))
        except Exception as problem:
            asked.set_exception(problem)

    # --- the subscribed connection ------------------------------------------------------------------------------------

    async def listen(self, channel: str, heard: Callable[[bytes], None]) -> bool:
        """Hear what is published there, also after an outage. True when Redis has confirmed it, False if it is away."""
        name = self._link.key(channel).encode()
        if name not in self._listeners:
            self._listeners[name] = heard
            self._confirmed[name] = asyncio.Event()
            if self._listening is None:
                self._listening = asyncio.create_task(self._listen(), name="commands")
            else:
                await self._subscribe(name)
        if not self._link.up:
            return False
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._confirmed[name].wait()
        except TimeoutError:
            return False
        return True

    async def unlisten(self, channel: str) -> None:
        """Hear it no longer."""
        name = self._link.key(channel).encode()
        self._listeners.pop(name, None)
        self._confirmed.pop(name, None)
        async with self._subscribing:
            if self._pubsub is not None:
                with contextlib.suppress(exceptions.RedisError, OSError, TimeoutError):
                    async with asyncio.timeout(TIMEOUT_S):
                        await self._pubsub.unsubscribe(name)

    async def _subscribe(self, *names: bytes) -> None:
        """On the connection that there is; a new one subscribes to everything by itself."""
        async with self._subscribing:
            if self._pubsub is None:
                return
            with contextlib.suppress(exceptions.RedisError, OSError, TimeoutError):  # the listening task notices too
                async with asyncio.timeout(TIMEOUT_S):
                    await self._pubsub.subscribe(*names)

    async def _listen(self) -> None:
        while True:
            await self._link.wait_up()
            self._pubsub = pubsub = self._link.client.pubsub()
            try:
                await self._subscribe(*self._listeners)
                while True:
                    self._dispatch(await pubsub.get_message(timeout=None))
            except (exceptions.RedisError, OSError, RuntimeError) as problem:  # RuntimeError: it could not subscribe
                self._link.suspect(problem)
            finally:
                self._pubsub = None
                for confirmed in self._confirmed.values():
                    confirmed.clear()
                await pubsub.aclose()  # type: ignore[no-untyped-call]
            await asyncio.sleep(PAUSE_S)

    def _dispatch(self, message: dict[str, Any] | None) -> None:
        if message is None:
            return
        channel = message["channel"]
        if channel not in self._listeners:  # it was let go of a moment ago
            return
        if message["type"] == "subscribe":
            self._confirmed[channel].set()
        elif message["type"] == "message":
            try:
                self._listeners[channel](message["data"])
            except Exception as problem:  # the edge of a message
                self._log.error("message of the bus not understood", exc_info=problem)


@dataclass(eq=False)
class _Served:
    handler: Handler
    others: list[_Served]

    async def close(self) -> None:
        if self in self.others:
            self.others.remove(self)
