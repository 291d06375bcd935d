"""What webhooks have of a call is found by the call, for whoever deletes it."""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.create_index("webhook_messages_lane", "webhook_messages", ["lane"])
