"""The tunnel's benchmark: rows compare what they say, and its traffic counts what really moved."""

import os
import time
from pathlib import Path

from bench.ends.crowd import Known, enrol_crowd
from bench.lanes import MEASURES, OURS, RAW, TARGETS, Values, middle, rows_of
from bench.peers.tunnels import CHAIN, PEERS, Way, server
from bench.processes import LOOPBACK, Process
from bench.wan import COMPARED, CUBIC
from tunnel.certificates import signed_by
from tunnel.identity import Authority


def test_a_row_is_the_round_with_the_median_ratio() -> None:
    assert middle([10.0, 30.0, 20.0], [10.0, 10.0, 10.0]) == (20.0, 10.0)
    assert middle([10.0, 90.0, 50.0], [5.0, 10.0, 50.0]) == (10.0, 5.0)


def test_every_target_is_judged_and_no_lane_is_a_peer_of_another() -> None:
    measured: Values = {measure: {name: [1.0] for name in (*OURS, RAW, *PEERS, CHAIN)} for measure in MEASURES}
    rows = {(row.measure, row.peer): row for row in rows_of(measured)}
    judged = {key for key, row in rows.items() if row.target}
    assert judged == {(f"{lane}: {measure}", peer) for measure, lane, peer in TARGETS}
    assert not {peer for _, peer in rows} & set(OURS)
    assert {measure.partition(":")[0] for measure, _ in rows} == set(OURS)


def test_a_contender_that_is_not_there_has_no_rows() -> None:
    measured: Values = {measure: {name: [1.0] for name in ("mux", "haproxy TLS pair")} for measure in MEASURES}
    assert {(row.measure.partition(":")[0], row.peer) for row in rows_of(measured)} == {("mux", "haproxy TLS pair")}


def test_the_target_with_loss_is_beside_cubic_whatever_the_kernels_default_is() -> None:
    bounds = {(lane, peer): bound for lane, peer, bound in COMPARED["WAN with loss"]}
    assert bounds["data", CUBIC] == 20.0
    assert bounds["data", RAW] is None


def test_traffic_moves_what_is_asked_or_says_how_much_it_was() -> None:
    with server(congestion="reno") as port, Process.python("bench.traffic", "load") as load:
        order = {"host": LOOPBACK.host, "port": port, "congestion": "reno"}
        for mode, streams in (("D", 1), ("U", 1), ("D", 8), ("U", 8)):
            moved = load.ask(do="bulk", mode=mode, streams=streams, bytes=1 << 20, relays=[os.getpid()], **order)
            assert moved["bytes"] == 1 << 20
            assert moved["cpu"] > 0  # the server runs in this process's family
        cut = load.ask(do="bulk", mode="D", streams=1, bytes=1 << 50, most=0.01, **order)
        assert 0 < cut["bytes"] < 1 << 50
        assert load.ask(do="echo", count=20, size=64, **order)["p50"] > 0
        assert load.ask(do="opens", seconds=0.01, parallel=2, **order)["count"] >= 2


def test_a_way_counts_its_relays_processor_time_and_none_without_one() -> None:
    assert Way("ours", LOOPBACK.host, 1, (os.getpid(),)).cpu() > 0.0
    assert Way(RAW, LOOPBACK.host, 1).cpu() == 0.0


def test_each_agent_of_a_crowd_has_a_key_and_certificate_of_its_own(tmp_path: Path) -> None:
    authority = Authority.load_or_create(tmp_path / "authority", now=time.time())
    enrol_crowd(tmp_path / "crowd", authority, ["a-1", "a-2"])
    places = sorted((tmp_path / "crowd").iterdir())
    agents = [Known(place) for place in places]
    assert [agent.agent_id for agent in agents] == ["a-1", "a-2"]
    assert agents[0].relay_context() is agents[0].relay_context() is not agents[1].relay_context()
    assert len({(place / "key.pem").read_bytes() for place in places}) == 2
    for place in places:
        assert signed_by((place / "cert.pem").read_text(), authority.ca_pem, (place / "key.pem").read_bytes())
