"""Webhooks: endpoints, what waits for them, and what came of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    counter = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    pending = sa.text("state = 'pending'")
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("tenant", sa.String(128), nullable=False),
        sa.Column("url", sa.String(2048), nullable=False),
        sa.Column("kinds", sa.JSON, nullable=False),
        sa.Column("secret", sa.String(128), nullable=False),
        sa.Column("secret_before", sa.String(128)),
        sa.Column("before_until", moment),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("disabled_at", moment),
        sa.Column("disabled_reason", sa.String(256)),
        sa.Column("dropped", sa.Integer, nullable=False),
    )
    op.create_index("webhook_endpoints_tenant", "webhook_endpoints", ["tenant", "created_at"])
    op.create_table(
        "webhook_lanes",
        sa.Column("id", counter, primary_key=True, autoincrement=True),
        sa.Column("endpoint_id", sa.String(32), _endpoint(), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("tenant", sa.String(128), nullable=False),
        sa.Column("due_at", moment, nullable=False),
        sa.Column("lease", sa.String(32)),
        sa.Column("leased_until", moment),
        sa.UniqueConstraint("endpoint_id", "name", name="webhook_lanes_name"),
    )
    op.create_index("webhook_lanes_due", "webhook_lanes", ["due_at"])
    op.create_index("webhook_lanes_tenant", "webhook_lanes", ["tenant", "due_at"])
    op.create_index("webhook_lanes_leased", "webhook_lanes", ["leased_until"])
    op.create_table(
        "webhook_messages",
        sa.Column("number", counter, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("endpoint_id", sa.String(32), _endpoint(), nullable=False),
        sa.Column("tenant", sa.String(128), nullable=False),
        sa.Column("lane", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("queued_at", moment, nullable=False),
        sa.Column("settled_at", moment),
        sa.Column("error", sa.String(256)),
        sa.UniqueConstraint("id", name="webhook_messages_id"),
    )
    op.create_index(
        "webhook_messages_pending",
        "webhook_messages",
        ["endpoint_id", "lane", "number"],
        postgresql_where=pending,
        sqlite_where=pending,
    )
    op.create_index("webhook_messages_state", "webhook_messages", ["endpoint_id", "state", "number"])
    op.create_index("webhook_messages_settled", "webhook_messages", ["settled_at"])
    op.create_table(
        "webhook_attempts",
        sa.Column("number", counter, primary_key=True, autoincrement=True),
        sa.Column(
            "message_id", sa.String(64), sa.ForeignKey("webhook_messages.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("endpoint_id", sa.String(32), nullable=False),
        sa.Column("tenant", sa.String(128), nullable=False),
        sa.Column("at", moment, nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("latency_ms", sa.Integer, nullable=False),
        sa.Column("error", sa.String(256)),
        sa.Column("answer", sa.Text, nullable=False),
    )
    op.create_index("webhook_attempts_message", "webhook_attempts", ["message_id"])
    op.create_index("webhook_attempts_endpoint", "webhook_attempts", ["endpoint_id", "number"])


def _endpoint() -> sa.ForeignKey:
    return sa.ForeignKey("webhook_endpoints.id", ondelete="CASCADE")


def downgrade() -> None:
    for table in ("webhook_attempts", "webhook_messages", "webhook_lanes", "webhook_endpoints"):
        op.drop_table(table)
