"""The same installation on PostgreSQL: up, run, crash, go on."""

from pathlib import Path

import pytest

from tests.e2e.installation import Installation
from tests.postgres import PostgresServer
from tests.postgres import postgres_server as postgres_server

pytestmark = pytest.mark.e2e


def test_an_installation_on_postgresql(tmp_path: Path, postgres_server: PostgresServer) -> None:
    with Installation(tmp_path, env={"ATOLL_DATABASE__URL": postgres_server.new_database()}) as at:
        at.up()
        assert at.atoll("run", "--", "python3", "-c", "print(6*7)") == "42\n"
        waits = f"until [ -e {tmp_path}/crashed ]; do sleep 0.1; done; exit 7"
        [name] = at.atoll("run", "--detach", "--", "sh", "-c", waits).split()
        at.wait([name], {"running"})
        at.kill("control")
        (tmp_path / "crashed").touch()
        at.up()
        [ended] = at.wait([name], {"failed"})
        assert (ended["exit_code"], ended["attempt"]) == (7, 1)
        assert not (at.home / "atoll.db").exists()
