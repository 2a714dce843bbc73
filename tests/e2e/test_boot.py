"""A launched machine that nothing can dial into: it joins by its user data alone, works, and ends itself."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clouds.guests import Guests
from tests.clouds.netns import Network, outbound_only
from tests.e2e.installation import Installation
from tests.e2e.launched import Launched, result
from tests.e2e.waiting import until
from tests.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("boot")]


@pytest.fixture
def network() -> Iterator[Network]:
    with outbound_only() as network:
        yield network


@pytest.fixture
def guests(network: Network, tmp_path: Path) -> Iterator[Guests]:
    guests = Guests(tmp_path / "guests", prefix=network.prefix)
    yield guests
    guests.close()


@pytest.fixture
def outside(network: Network, tmp_path: Path) -> Iterator[Installation]:
    """An installation that listens where the machines of `network` reach it."""
    port = free_port()
    settings = {
        "ATOLL_SERVER__LISTEN": f"{network.host}:{port}",
        "ATOLL_TIMES__SETTLE_S": "1",
        "ATOLL_TIMES__LOST_AFTER_S": "3",
    }
    with Installation(tmp_path, port=port, env=settings) as installation:
        installation.up("--no-agent")
        yield installation


def agent_pid(guests: Guests) -> int:
    lock = guests._base("m") / "home" / ".atoll" / "agent" / "lock"
    return int(lock.read_text().split()[0])


def test_a_machine_lives_and_dies_by_its_boot_script(
    outside: Installation, guests: Guests, network: Network, tmp_path: Path
) -> None:
    launched = Launched(outside, tmp_path, lease="5s", scale_down="{idle: 600}")
    first = launched.begin("sh", "-c", "echo from $ATOLL_SESSION_NAME; hostname")
    guests.boot("m", launched.user_data())
    until(launched.connected, "the machine's agent", within=60, story=lambda: guests.console("m") + outside.story())
    assert "from " in result(first, outside, 60)

    # Nothing dials in.
    with socket.socket() as probe:
        probe.settimeout(0.5)
        with pytest.raises(OSError, match="timed out"):
            probe.connect((network.inside, 22))

    # A killed agent comes back and goes on with what ran.
    long = launched.begin("sh", "-c", "sleep 12; echo survived")
    until(lambda: any(s["state"] == "running" for s in outside.sessions()), "the long session", story=outside.story)
    before = agent_pid(guests)
    os.kill(before, signal.SIGKILL)
    until(lambda: agent_pid(guests) != before, "another agent", story=lambda: guests.console("m"))
    assert result(long, outside, 60) == "survived\n"

    # Without its control plane the machine ends itself, not before its lease is over.
    began = time.monotonic()
    outside.atoll("down")
    until(lambda: not guests.processes(), "the machine's end", within=60, story=lambda: guests.console("m"))
    assert time.monotonic() - began > 4
    assert not guests.running("m")
    assert "the length of its lease" in guests.console("m")


def test_a_frozen_agent_cannot_keep_its_machine(outside: Installation, guests: Guests, tmp_path: Path) -> None:
    """The dead-man of the boot script ends what its agent does not: here one that is stopped for ever."""
    launched = Launched(outside, tmp_path, lease="2s", scale_down="{idle: 600}")
    first = launched.begin("true")
    guests.boot("m", launched.user_data())
    result(first, outside, 60)
    deadline = guests._base("m") / "home" / ".atoll" / "deadline"
    until(lambda: int(deadline.read_text()) < _uptime() + 60, "a deadline from the agent")
    os.kill(agent_pid(guests), signal.SIGSTOP)
    until(lambda: not guests.processes(), "the machine's end", within=60, story=lambda: guests.console("m"))
    assert "nothing has let it live longer" in guests.console("m")


def test_a_machine_that_is_no_longer_wanted_ends_itself(outside: Installation, guests: Guests, tmp_path: Path) -> None:
    """Its group shrinks; its agent is told or learns it: nobody reaches into the machine."""
    launched = Launched(outside, tmp_path, scale_down="{idle: 1, cooldown: 0.1}")
    first = launched.begin("true")
    guests.boot("m", launched.user_data())
    result(first, outside, 60)
    until(lambda: not guests.processes(), "the machine's end", within=60, story=lambda: guests.console("m"))
    assert not guests.running("m")
    assert "its agent is done" in guests.console("m")


def _uptime() -> float:
    return float(Path("/proc/uptime").read_text().split()[0])
