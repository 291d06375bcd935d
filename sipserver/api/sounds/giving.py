"""The inside door of a fleet's machine, at which other machines fetch sound files that lie here.

Owns its socket and its address on the bus. It gives what a ticket names, and whoever has none learns nothing: also not
what there is. Refuses to know who asked the other machine; that one has checked it.
"""

from __future__ import annotations

from aiohttp import web

from sipserver.api.acceptor import Site, bound
from sipserver.api.rest.problems import as_problems
from sipserver.api.sounds import doors, tickets
from sipserver.api.sounds.here import Sounds
from sipserver.api.sounds.tickets import Sound
from sipserver.bus.contract import Lease, Leases
from sipserver.errors import NotFound, SettingsError
from sipserver.tenants.sound_files import wav_name

SOUND, NAMES = "/sound", "/names"
STOP_S = 5.0
"""What is under way gets so long when the process ends."""


class Giving:
    """`start`, use `port`, `stop`. Loop thread. host: a private address of this machine. port: 0: any; otherwise all
    gateways of the machine share it, since each of them can give each file.
    """

    def __init__(self, sounds: Sounds, leases: Leases, *, node: str, run: str, host: str, port: int) -> None:
        self._sounds, self._leases, self._node, self._run = sounds, leases, node, run
        self._host, self.port = host, port
        app = web.Application(middlewares=[as_problems])
        app.add_routes([web.get(SOUND, self._sound), web.get(NAMES, self._names)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_S)
        self._lease: Lease | None = None

    async def start(self) -> None:
        """Raises SettingsError when the address is taken or not ours."""
        await self._runner.setup()
        try:
            listeners = await bound(self._host, self.port, reuse_port=bool(self.port))
            self.port = int(listeners[-1].getsockname()[1])
            await Site(self._runner, listeners).start()
        except OSError as problem:
            await self._runner.cleanup()
            raise SettingsError(
                f"cannot listen on {self._host}:{self.port}: {problem.strerror}", key="fleet.files_port"
            ) from problem
        where = {"host": self._host, "port": self.port}
        self._lease = await self._leases.hold(f"{doors.of_machine(self._node)}{self._run}", where)

    async def stop(self) -> None:
        """Nobody new comes; what is under way gets STOP_S. Idempotent."""
        if self._lease is not None:
            await self._lease.close()
        await self._runner.cleanup()

    async def _sound(self, request: web.Request) -> web.StreamResponse:
        sound = await self._meant(request)
        path = await self._sounds.find(sound.path)
        if path is None:
            raise _nothing()
        name = wav_name(path)
        return await self._sounds.answer(request, path, tenant=sound.tenant, whole=sound.whole, name=name)

    async def _names(self, request: web.Request) -> web.StreamResponse:
        """Where the recordings of the ticket's call are on this machine."""
        sound = await self._meant(request)
        return web.json_response(list(await self._sounds.of_call(sound.path, sound.call)))

    async def _meant(self, request: web.Request) -> Sound:
        sound = await tickets.shown(self._leases, request.headers.get("Authorization", ""))
        if sound is None or sound.node != self._node:
            raise _nothing()
        return sound


def _nothing() -> NotFound:
    return NotFound("there is nothing here for you")
