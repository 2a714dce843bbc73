"""Records of users' streams."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_INDEXED = ("state", "project", "session", "user")


def upgrade() -> None:
    """Make the table of stream records."""
    op.create_table(
        "stream_records",
        sa.Column("key", _KEY, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in _INDEXED),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("ix_stream_records_created", "stream_records", ["created", "key"])
    for column in _INDEXED:
        op.create_index(f"ix_stream_records_{column}", "stream_records", [column])
