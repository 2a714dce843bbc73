"""What sessions have cost so far becomes a stretch where they were last: nothing more of it is known."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_HOUR = 3600.0


def upgrade() -> None:
    """Give each session that has cost something the stretch that its sum is made of."""
    sessions = sa.table("sessions", sa.column("key"), sa.column("body"))
    for found in op.get_bind().execute(sa.select(sessions.c.key, sessions.c.body)).all():
        body = json.loads(found.body)
        if body.get("cost", 0) > 0 and not body.get("stretches"):
            body["stretches"] = [_stretch(body)]
            op.execute(sessions.update().where(sessions.c.key == found.key).values(body=json.dumps(body)))


def _stretch(body: dict[str, object]) -> dict[str, object]:
    began = float(str(body.get("created_at") or 0.0))
    ended = max(began, *(float(str(body.get(name) or 0.0)) for name in ("ended_at", "queued_at", "moved_at")))
    cost = int(str(body["cost"]))
    return {
        "site": body.get("site", ""),
        "group": body.get("group", ""),
        "price": round(cost * _HOUR / (ended - began)) if ended > began else 0,
        "started_at": began,
        "ended_at": ended,
        "cost": cost,
        "on_demand_cost": body.get("on_demand_cost", 0),
    }
