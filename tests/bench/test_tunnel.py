"""The tunnel's benchmark: rows compare what they say, and its traffic counts what really moved."""

import os

from bench.lanes import MEASURES, OURS, RAW, TARGETS, Values, middle, rows_of
from bench.peers.tunnels import CHAIN, PEERS, Way, server
from bench.processes import LOOPBACK, Process
from bench.wan import COMPARED, CUBIC


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
            assert load.ask(do="bulk", mode=mode, streams=streams, bytes=1 << 20, **order)["bytes"] == 1 << 20
        cut = load.ask(do="bulk", mode="D", streams=1, bytes=1 << 50, most=0.01, **order)
        assert 0 < cut["bytes"] < 1 << 50
        assert load.ask(do="echo", count=20, size=64, **order)["p50"] > 0
        assert load.ask(do="opens", seconds=0.01, parallel=2, **order)["count"] >= 2


def test_a_way_counts_its_relays_processor_time_and_none_without_one() -> None:
    assert Way("ours", LOOPBACK.host, 1, (os.getpid(),)).cpu() > 0.0
    assert Way(RAW, LOOPBACK.host, 1).cpu() == 0.0
