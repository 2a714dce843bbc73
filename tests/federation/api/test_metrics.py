"""Figures for Prometheus: who may read them, that the text is valid, and that they count what happens."""

import asyncio
import re

import pytest

from atoll.agent import Agent
from atoll.errors import Unavailable
from atoll.policy import ADMIN
from federation.control.control import Control
from federation.control.metrics import Figures, Metrics, families
from federation.control.relaymetrics import REASONS_LIMIT, relay_process_families
from tests.fakes.linkfacts import FakeLinkFacts
from tests.federation.api.test_through import Whole, whole
from tests.federation.served import Served
from tunnel import wire
from tunnel.figures import LaneFigures
from tunnel.metrics import Family, Histogram, Sample, counter, gauge, port_families, text

__all__ = ["whole"]

_SAMPLE = re.compile(r"([a-z_]+)(\{([a-z_]+=\"(\\.|[^\"\\\n])*\",?)+\})? (\+Inf|-?\d+(\.\d+)?(e-?\d+)?)")
Values = dict[str, float]


def read(told: str) -> Values:
    """Read the text as strictly as its format says: each family once, its lines together, each series once."""
    assert told.endswith("\n")
    values: Values = {}
    names: list[str] = []
    for line in told.splitlines():
        if line.startswith("# HELP "):
            names.append(line.split()[2])
        elif line.startswith("# TYPE "):
            assert line.split()[2] == names[-1]
            assert line.split()[3] in ("counter", "gauge", "histogram")
        else:
            assert (found := _SAMPLE.fullmatch(line)), line
            assert found[1].startswith(names[-1])
            series, _, value = line.rpartition(" ")
            assert series not in values
            values[series] = float(value)
    assert len(set(names)) == len(names)
    return values


async def figures(server: Served) -> Values:
    async with server.http.get(server.url + "/metrics", headers=server.bearer) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        return read(await answer.text())


@pytest.mark.parametrize(("roles", "status"), [((), 403), (("lead",), 403), (("monitor",), 200), ((ADMIN,), 200)])
async def test_figures_are_for_monitors_and_administrators(server: Served, roles: tuple[str, ...], status: int) -> None:
    _, secret = await server.plane.tokens.create_api("prometheus", roles)
    headers = {"Authorization": f"Bearer {secret}"}
    async with server.http.get(server.url + "/metrics", headers=headers) as answer:
        assert answer.status == status
    async with server.http.get(server.url + "/metrics", headers=server.page_cookie()) as answer:
        assert answer.status == 403


async def test_figures_count_what_happens(whole: Whole) -> None:
    control = whole.server.services.control
    _, secret = await control.tokens.create_api("prometheus", ("monitor",))
    whole.server.bearer = {"Authorization": f"Bearer {secret}"}
    before = await figures(whole.server)
    assert before['atoll_agents_connected{group="local"}'] == 1
    assert before['atoll_tunnel_opens_total{lane="data"}'] == 0
    agent = f'agent="{whole.agent._id}",name="box",group="local"'
    assert before[f"atoll_link_up{{{agent}}}"] == 1
    await whole.server.good("POST", "/v1/links/box:ping", {"count": 2})
    session = await whole.running()
    after = await figures(whole.server)
    assert after['atoll_tunnel_opens_total{lane="data"}'] == 1
    assert after['atoll_tunnel_bytes_total{lane="data",direction="to_agents"}'] == 32
    assert after[f'atoll_link_bytes_total{{{agent},lane="data",direction="from_agents"}}'] == 32
    assert after[f"atoll_link_rtt_seconds{{{agent}}}"] >= 0
    assert after['atoll_sessions{state="running"}'] == 1
    assert after['atoll_rounds_total{reconciler="schedule"}'] > 0
    assert after['atoll_round_age_seconds{reconciler="schedule"}'] < 60
    assert after["process_resident_memory_bytes"] > 10_000_000
    assert not any(session in series for series in after)
    whole.network.reset(whole.agent._id)
    async with asyncio.timeout(60):
        while (after := await figures(whole.server))['atoll_agents_connected{group="local"}']:
            await asyncio.sleep(0.01)
    assert (after[f"atoll_link_up{{{agent}}}"], after["atoll_link_drops_total"]) == (0, 1)
    assert f"atoll_link_rtt_seconds{{{agent}}}" not in after


def test_many_agents_are_counted_by_group_alone() -> None:
    def series(count: int, shown: int) -> Values:
        fake = FakeLinkFacts({})
        links = [fake.standing(Agent(id=f"a-{n}", name="same", site="s", group=f"g{n % 3}")) for n in range(shown)]
        reach = [(f"g{n % 3}", True, 0.01 * (n % 3)) for n in range(count)]
        nothing: dict[str, int] = {}
        said = wire.Serving(protocol=3, version="1", boot="b", agents=7, sent=9)
        relays = [("east", said, 0.5), ("west", None, None)]
        return read(text(families(Figures(nothing, nothing, nothing, 0.0, reach, links, relays, 0, 0, []))))

    few, many = series(200, 200), series(5000, 0)
    assert sum("a-" in each for each in few) > 2 * 200
    assert not any("a-" in each for each in many)
    assert sum(each.startswith("atoll_agents_connected{") for each in many) == 3
    assert many['atoll_agents_connected{group="g0"}'] == 1667
    assert (many['atoll_relay_up{relay="east"}'], many['atoll_relay_up{relay="west"}']) == (1, 0)
    assert (many['atoll_relay_agents{relay="east"}'], 'atoll_relay_agents{relay="west"}' in many) == (7, False)
    assert many['atoll_relay_bytes_total{relay="east",direction="to_agents"}'] == 9
    assert many['atoll_group_rtt_seconds{group="g2",quantile="1"}'] == pytest.approx(0.02)


async def test_links_are_shown_one_by_one_up_to_a_number(whole: Whole) -> None:
    figures = whole.server.services.control.metrics
    assert isinstance(figures, Metrics)

    async def shown() -> bool:
        return any(family.name == "atoll_link_up" for family in await figures.families())

    assert await shown()
    figures._shown = 0
    assert not await shown()


def test_a_relay_tells_of_its_lanes_and_whatever_it_says_labels_are_few() -> None:
    said = wire.Serving(
        protocol=3,
        version="1",
        boot="b",
        streams=4,
        passing=5,
        buffered=6,
        lost=7,
        refused={"UNAUTHORIZED": 8},
        port={f"odd{number}": number for number in range(1000)},
        lanes={
            "data": LaneFigures(streams=1, opens=2, resumes=3, received=4, sent=5, refused={"AGENT_OFFLINE": 6}),
            "made up": LaneFigures(opens=9),
        },
    )
    told = read(text(relay_process_families([("east", said, 0.25), ("west", None, None)])))
    lane = 'relay="east",lane="data"'
    assert told['atoll_relay_rtt_seconds{relay="east"}'] == 0.25
    assert told[f"atoll_relay_lane_opens_total{{{lane}}}"] == 2
    assert told[f"atoll_relay_lane_resumes_total{{{lane}}}"] == 3
    assert told[f'atoll_relay_lane_bytes_total{{{lane},direction="from_agents"}}'] == 4
    assert told[f'atoll_relay_lane_refusals_total{{{lane},reason="AGENT_OFFLINE"}}'] == 6
    assert told['atoll_relay_refusals_total{relay="east",reason="UNAUTHORIZED"}'] == 8
    assert told['atoll_relay_reports_lost_total{relay="east"}'] == 7
    ports = {series: value for series, value in told.items() if "port_refusals" in series}
    assert len(ports) == REASONS_LIMIT + 1
    assert sum(ports.values()) == sum(range(1000))
    assert not any("made up" in series for series in told)
    assert [series for series in told if "west" in series] == ['atoll_relay_up{relay="west"}']
    assert relay_process_families([]) == []


async def test_refusals_are_told_by_reason(whole: Whole) -> None:
    control = whole.server.services.control
    _, secret = await control.tokens.create_api("prometheus", ("monitor",))
    whole.server.bearer = {"Authorization": f"Bearer {secret}"}
    async with whole.server.http.get(whole.server.url + "/v1/groups", headers={"Authorization": "Bearer x"}) as answer:
        assert answer.status == 401
    session = await whole.running()
    assert isinstance(control, Control)
    control.streams.user_limit = 0
    with pytest.raises(Unavailable):
        await control.streams.open(f"{session}.1.0", "", 80, asyncio.Protocol(), user="ada")
    control.reports.refused["grant"] += 1
    told = await figures(whole.server)
    assert told['atoll_failed_proofs_total{outcome="failed"}'] == 1
    assert told['atoll_user_stream_refusals_total{reason="user_streams"}'] == 1
    assert told['atoll_stream_reports_refused_total{reason="grant"}'] == 1
    assert told["atoll_stream_reports_lost_total"] == 0


def test_text_is_escaped_and_a_name_is_used_once() -> None:
    odd = gauge("odd", "a\\b\nc", Sample(1.5, {"who": 'x"y\\z\n'}), Sample(float("inf")))
    assert text([odd]) == '# HELP odd a\\\\b\\nc\n# TYPE odd gauge\nodd{who="x\\"y\\\\z\\n"} 1.5\nodd +Inf\n'
    with pytest.raises(ValueError, match="two families"):
        text([odd, counter("odd", "again")])


def test_a_histogram_counts_up_to_each_bound() -> None:
    late = Histogram(0.1, 1.0)
    for value in (0.05, 0.1, 0.5, 3.0):
        late.add(value)
    family: Family = late.family("late_seconds", "x")
    assert read(text([family])) == {
        'late_seconds_bucket{le="0.1"}': 2,
        'late_seconds_bucket{le="1"}': 3,
        'late_seconds_bucket{le="+Inf"}': 4,
        "late_seconds_sum": pytest.approx(3.65),
        "late_seconds_count": 4,
    }


def test_the_port_tells_what_it_refused() -> None:
    assert read(text(port_families({"timeout": 2}, 3))) == {
        'atoll_port_refusals_total{reason="timeout"}': 2,
        "atoll_port_handshakes": 3,
    }
