"""What calls used, of which part: for bills. It stays when the records of calls are deleted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

UNMETERED = sa.text("quantity > metered")


def upgrade() -> None:
    op.create_table(
        "usage",
        sa.Column("call_id", sa.String(64), primary_key=True),
        sa.Column("part", sa.String(32), primary_key=True),
        sa.Column("leg", sa.String(64), primary_key=True),
        sa.Column("engine", sa.String(128), primary_key=True),
        sa.Column("vendor", sa.String(64), primary_key=True),
        sa.Column("model", sa.String(128), primary_key=True),
        sa.Column("tenant", sa.String(128), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("quantity", sa.BigInteger, nullable=False),
        sa.Column("unit", sa.String(16), nullable=False),
        sa.Column("metered", sa.BigInteger, nullable=False),
        sa.Column("metering", sa.BigInteger, nullable=False),
    )
    op.create_index("usage_tenant_at", "usage", ["tenant", "at", "call_id"])
    op.create_index("usage_unmetered", "usage", ["tenant", "at"], postgresql_where=UNMETERED, sqlite_where=UNMETERED)


def downgrade() -> None:
    op.drop_table("usage")
