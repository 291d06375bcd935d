"""The `store:` part of the settings."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class StoreSettings(BaseModel):
    """url: an SQLAlchemy URL of an asyncio driver. A relative SQLite path is relative to the settings file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = "sqlite+aiosqlite:///../var/sipserver.db"
    queue: int = Field(default=10_000, ge=100)
    flush_ms: int = Field(default=200, ge=10)
