"""Makes neutron's tables from its models: `python -m tests.openstack.server.tables URL`. Runs in the servers' venv."""

import sys

import sqlalchemy
from neutron.db.migration.models import head  # type: ignore[import-not-found]

if __name__ == "__main__":
    head.get_metadata().create_all(sqlalchemy.create_engine(sys.argv[1]))
