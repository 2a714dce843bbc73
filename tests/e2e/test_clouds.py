"""Bursting to every cloud: its driver makes machines whose user data, read back from the server, makes them agents."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clouds import every
from tests.clouds.harness import Harness
from tests.clouds.netns import Network, outbound_only
from tests.e2e.burst import Burst, installation
from tests.e2e.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture
def network() -> Iterator[Network]:
    with outbound_only() as network:
        yield network


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.xdist_group(f"cloud-{name}")) for name in every.REAL])
def cloud(request: pytest.FixtureRequest, tmp_path: Path, network: Network) -> Iterator[Harness]:
    harness = every.harness(request.param, tmp_path / "cloud")
    harness.start()
    harness.guests.prefix = network.prefix
    try:
        yield harness
    finally:
        harness.stop()
    assert harness.leftovers() == []


@pytest.fixture
def burst(cloud: Harness, network: Network, tmp_path: Path) -> Iterator[Burst]:
    with installation(tmp_path, network) as at:
        at.up("--no-agent")
        burst = Burst(at, cloud, tmp_path)
        burst.priced()
        yield burst


def test_sessions_run_on_machines_that_were_made_for_them(burst: Burst) -> None:
    names = [f"work-{number}" for number in range(4)]
    for name in names:
        burst.run(name, "sh", "-c", "echo done by $ATOLL_SESSION_NAME; sleep 1")
    until(burst.live, "a machine at the cloud", within=30, story=burst.story)
    seen = burst.live()[0]
    assert "ATOLL_JOIN_TOKEN" in seen.user_data
    assert seen.tags.get("team") == "blue"
    for view in burst.at.wait(names, ["succeeded"], within=120):
        assert view["site"] == "far"
        assert f"done by {view['name']}" in burst.at.atoll("logs", view["name"])
    burst.empty()
    made = [seen.intent for seen in burst.cloud.inventory()]
    assert len(made) == len(set(made))
    assert "cloud and records agree" in burst.at.call("sweep").stderr


def test_a_refused_type_is_left_for_another(burst: Burst) -> None:
    if "no_capacity" not in burst.cloud.can:
        pytest.skip(f"the {burst.cloud.name} server always has capacity")
    burst.cloud.inject(no_capacity={"times": 1})
    burst.run("work", "echo", "made it")
    burst.at.wait(["work"], ["succeeded"], within=120)
    assert burst.cloud.struck()["no_capacity"] == 1
    burst.empty()


def test_a_machine_taken_away_gives_its_session_back(burst: Burst) -> None:
    burst.run("work", "sh", "-c", 'echo "attempt $ATOLL_ATTEMPT"; [ "$ATOLL_ATTEMPT" -gt 1 ] || sleep 60', retries="3")
    burst.at.wait(["work"], ["running"], within=90)
    burst.cloud.remove(burst.live()[0].provider_id)
    burst.at.wait(["work"], ["succeeded"], within=120)
    assert "attempt 2" in burst.at.atoll("logs", "work")
    burst.empty()
