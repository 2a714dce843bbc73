"""Relays as processes of their own."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the table of relays."""
    op.create_table(
        "relays",
        sa.Column("key", _KEY, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("ix_relays_created", "relays", ["created", "key"])
    for column in ("state", "name"):
        op.create_index(f"ix_relays_{column}", "relays", [column])
