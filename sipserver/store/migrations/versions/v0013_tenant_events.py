"""What happens to a tenant and to none of its calls, for those who follow its events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.create_table(
        "tenant_events",
        sa.Column("run", sa.String(32), primary_key=True),
        sa.Column("at_us", sa.BigInteger, primary_key=True),
        sa.Column("tenant", sa.String(128), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("fields", sa.JSON, nullable=False),
    )
    op.create_index("tenant_events_tenant", "tenant_events", ["tenant", "at_us"])
