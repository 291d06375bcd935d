"""The control plane: what programs ask from outside, put together of the rooms that answer.

Owns the order in which its parts start and end, and its own connections to the database. Refuses to know calls: they
are asked (`asking`).
"""

from __future__ import annotations

from aiohttp import web

from sipserver.api.rest import app
from sipserver.api.rest.access import Access
from sipserver.api.rest.calls import CallOperations
from sipserver.asking import Asking
from sipserver.bus.contract import Once
from sipserver.settings import Settings
from sipserver.store.database import Database
from sipserver.store.keys import KeyRows
from sipserver.store.reader import Reader
from sipserver.tenants.key_book import KeyBook


class ControlPlane:
    """Loop thread. `app` at once; `close` at the end. The tables are made by whoever writes records."""

    def __init__(self, loaded: Settings, asking: Asking, once: Once) -> None:
        self._database = Database(loaded.store)
        keys = KeyBook(KeyRows(self._database))
        calls = CallOperations(Reader(self._database), asking, once.first, loaded.calls.recordings)
        access = Access(keys.recognise, per_s=loaded.http.api_per_s)
        self.app: web.Application = app.application(access, calls.operations())

    async def close(self) -> None:
        await self._database.close()
