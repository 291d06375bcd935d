"""The schema's history, by Alembic, without alembic.ini: `apply` finds its files beside this one.

A new version is a hand-written file in `versions/` (the name begins with its number) and a new HEAD here.
Alembic is imported only when there is something to do: a running server does not carry it.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from sipserver.errors import SettingsError

HEAD = "0015"
LOCK = 0x51BC_A115
"""Number of the advisory lock on PostgreSQL, which has no names for them."""


def apply(connection: sa.Connection) -> bool:
    """Bring the database to HEAD within the connection's transaction; True if there was something to do.

    Blocks (run it through `run_sync`). Raises SettingsError when a newer server wrote the database.
    """
    if version(connection) == HEAD:
        return False
    _lock(connection)
    present = version(connection)
    if present == HEAD:
        return False
    if present is not None and present > HEAD:
        raise SettingsError(
            f"the database has version {present}, this server knows {HEAD}: run the newer server", key="store.url"
        )
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)
    return True


def _lock(connection: sa.Connection) -> None:
    """One process at a time, until the end of the transaction; the next one finds the work done."""
    if connection.dialect.name == "sqlite":
        # The driver begins transactions before INSERT and the like, not before CREATE TABLE.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})


def version(connection: sa.Connection) -> str | None:
    """The version of the database; None for a new one."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
