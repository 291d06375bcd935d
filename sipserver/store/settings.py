"""The `store:` part of the settings."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class StoreSettings(BaseModel):
    """url: `sqlite+aiosqlite:///FILE` or `postgresql+asyncpg://USER@HOST:PORT/DATABASE` (with `?ssl=require` and the
    like). A relative SQLite path is relative to the settings file. PostgreSQL's password comes from the environment
    variable that password_env names.

    queue: what the calls told is held in memory up to so many entries, and on disk beyond. flush_ms: how often it is
    written.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = "sqlite+aiosqlite:///../var/sipserver.db"
    password_env: str = "SIPSERVER_DATABASE_PASSWORD"  # noqa: S105  the name of a variable
    queue: int = Field(default=10_000, ge=100)
    flush_ms: int = Field(default=200, ge=10)
