"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_ROWS = {
    "sessions": ("state", "project", "name", "group"),
    "agents": ("state", "site", "group", "instance", "name"),
    "instances": ("state", "group", "provider", "agent"),
    "groups": ("site", "provider", "kind"),
    "providers": ("kind",),
    "sites": (),
    "tokens": ("kind", "group", "instance", "owner"),
    "plans": (),
}


def upgrade() -> None:
    """Make every table of release 0.1."""
    for name, indexed in _ROWS.items():
        _rows(name, indexed)
    op.create_table(
        "session_agents",
        sa.Column("agent", _KEY, primary_key=True),
        sa.Column("session", _KEY, primary_key=True),
    )
    op.create_index("ix_session_agents_session", "session_agents", ["session"])
    op.create_table(
        "events",
        sa.Column("rev", _SERIAL, primary_key=True, autoincrement=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "decisions",
        sa.Column("id", _SERIAL, primary_key=True, autoincrement=True),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_decisions_subject", "decisions", ["subject", "id"])
    op.create_table(
        "answers",
        sa.Column("key", _KEY, primary_key=True),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
    )
    op.create_index("ix_answers_at", "answers", ["at"])
    op.create_table(
        "settings",
        sa.Column("name", _KEY, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )


def _rows(name: str, indexed: tuple[str, ...]) -> None:
    uses: tuple[sa.Column[int] | sa.Column[float], ...] = ()
    if name == "tokens":
        uses = (sa.Column("uses_left", sa.Integer, nullable=False), sa.Column("expires_at", sa.Double))
    op.create_table(
        name,
        sa.Column("key", _KEY, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        *(sa.Column(column, sa.Text, nullable=False) for column in indexed),
        *uses,
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index(f"ix_{name}_created", name, ["created", "key"])
    for column in indexed:
        op.create_index(f"ix_{name}_{column}", name, [column])
