"""Connections to an SQLite file: how one is opened, how it is closed, and the threads that they work on.

Owns the driver's threads. Refuses to know tables.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from functools import partial
from typing import Any

import aiosqlite

BUSY_TIMEOUT_MS = 2_000
_CHUNK_ROWS = 64
_LAST_S = 1.0
"""For what a thread does after it has waited for a lock."""


class Drivers:
    """Makes the connections of one engine (`async_creator_fn` of SQLAlchemy's dialect) and sees them off. Loop thread.

    A task that is cancelled leaves its statement to the driver's thread, which tells the loop of its end: `gone` before
    the loop is closed, or that fails, with a traceback that nobody can do anything about.
    """

    def __init__(self) -> None:
        self._leaving: set[threading.Thread] = set()

    def connect(self, *arguments: Any, **options: Any) -> aiosqlite.Connection:
        """As `sqlite3.connect`; to be awaited. Raises sqlite3.Error then."""
        return _Driver(partial(_opened, *arguments, **options), self._leaving)

    async def gone(self) -> None:
        """Wait until the threads have ended that were told to; a thread may wait for a lock and is given that time."""
        waiting = {thread for thread in self._leaving if thread.is_alive()}
        self._leaving.clear()
        if waiting:
            await asyncio.to_thread(_join, waiting, time.monotonic() + BUSY_TIMEOUT_MS / 1000 + _LAST_S)


class _Driver(aiosqlite.Connection):
    def __init__(self, connector: partial[sqlite3.Connection], leaving: set[threading.Thread]) -> None:
        super().__init__(connector, _CHUNK_ROWS)
        self._thread.daemon = True
        self._leaving = leaving

    def stop(self) -> asyncio.Future[Any] | None:
        self._leaving -= {thread for thread in self._leaving if not thread.is_alive()}
        self._leaving.add(self._thread)
        return super().stop()


class _Connection(sqlite3.Connection):
    """Rolls back when it is closed. SQLite itself does so only when the last cursor is gone (sqlite3_close_v2), and the
    exception of a cancelled task may keep one: its transaction would go on, and lock the file."""

    def close(self) -> None:
        try:
            if self.in_transaction:
                self.rollback()
        finally:
            super().close()


def _join(threads: set[threading.Thread], deadline: float) -> None:
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def _opened(*arguments: Any, **options: Any) -> sqlite3.Connection:
    """On the driver's thread, which may wait."""
    connection = sqlite3.connect(*arguments, factory=_Connection, **options)
    try:
        _write_ahead(connection)
        for pragma in (f"busy_timeout = {BUSY_TIMEOUT_MS}", "synchronous = NORMAL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}").close()
    except BaseException:
        connection.close()
        raise
    return connection


def _write_ahead(connection: sqlite3.Connection) -> None:
    """While others open a new file at the same moment SQLite refuses this at once, whatever `busy_timeout` is: each of
    them waits for the other's lock.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").close()
        except sqlite3.OperationalError as problem:
            if problem.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
        else:
            return
