"""An index of the calls that died with their process, so that those with a recording to mend are found quickly."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    crashed = sa.text("end_reason = 'crash'")
    op.create_index("calls_crashed", "calls", ["run"], postgresql_where=crashed, sqlite_where=crashed)


def downgrade() -> None:
    op.drop_index("calls_crashed", "calls")
