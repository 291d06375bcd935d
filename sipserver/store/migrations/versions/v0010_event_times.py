"""When an event was told, and by that its place among all events of its process."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("events", sa.Column("at_us", sa.BigInteger))
    op.create_index("events_at_us", "events", ["at_us"])
