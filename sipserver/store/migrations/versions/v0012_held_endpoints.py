"""Endpoints whose receiver is away: failures in a row, since when it is held, and when it is tried next."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("webhook_endpoints", sa.Column("failures", sa.Integer, nullable=False, server_default="0"))
    op.add_column("webhook_endpoints", sa.Column("held_since", sa.DateTime(timezone=True)))
    op.add_column("webhook_endpoints", sa.Column("held_until", sa.DateTime(timezone=True)))
