"""Policies and budgets; the installation's first API token becomes an administrator's."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables of policies and budgets, and an administrator where there are tokens already."""
    for name in ("policies", "budgets"):
        op.create_table(
            name,
            sa.Column("key", _KEY, primary_key=True),
            sa.Column("version", sa.Integer, nullable=False),
            sa.Column("created", sa.Double, nullable=False),
            sa.Column("project", sa.Text, nullable=False),
            sa.Column("body", sa.Text, nullable=False),
        )
        op.create_index(f"ix_{name}_created", name, ["created", "key"])
        op.create_index(f"ix_{name}_project", name, ["project"])
    _name_an_administrator()


def _name_an_administrator() -> None:
    tokens = sa.table("tokens", sa.column("key"), sa.column("kind"), sa.column("created"), sa.column("body"))
    first = sa.select(tokens.c.key, tokens.c.body).where(tokens.c.kind == "api")
    found = op.get_bind().execute(first.order_by(tokens.c.created, tokens.c.key).limit(1)).first()
    if found is not None:
        body = json.dumps({**json.loads(found.body), "roles": ["admin"]})
        op.execute(tokens.update().where(tokens.c.key == found.key).values(body=body))
