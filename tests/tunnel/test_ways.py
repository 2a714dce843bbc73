"""Which way an agent tries next."""

from tunnel.ways import AGAIN_S, Way, Ways


def test_what_works_is_kept() -> None:
    ways = Ways()
    assert ways.first(0.0) is Way.DIRECT
    ways.worked(Way.DIRECT, 1.0)
    assert (ways.current, ways.first(AGAIN_S * 3)) == (Way.DIRECT, Way.DIRECT)


def test_large_packets_that_are_lost_give_their_turn_to_small_ones() -> None:
    ways = Ways()
    ways.stalled(Way.DIRECT, 1000.0)
    assert ways.first(1001.0) is Way.SMALL
    ways.worked(Way.SMALL, 1002.0)
    assert ways.first(1003.0) is Way.SMALL
    assert Way.SMALL.segment == 1220
    assert Way.DIRECT.segment == 0


def test_the_direct_way_is_tried_again_but_not_for_data() -> None:
    ways = Ways()
    ways.stalled(Way.DIRECT, 1000.0)
    late = 1000.0 + AGAIN_S
    assert (ways.first(late), ways.current) == (Way.DIRECT, Way.SMALL)
    ways.stalled(Way.DIRECT, late + 10)
    assert ways.first(late + 11) is Way.SMALL
    late += AGAIN_S + 11
    assert ways.first(late) is Way.DIRECT
    ways.worked(Way.DIRECT, late)
    assert ways.current is Way.DIRECT


def test_another_tls_server_means_a_websocket_at_once() -> None:
    ways = Ways()
    assert ways.foreign(Way.DIRECT, 5.0) is Way.WEBSOCKET
    assert ways.first(6.0) is Way.DIRECT, "it has not worked"
    ways.worked(Way.WEBSOCKET, 7.0)
    assert ways.first(8.0) is Way.WEBSOCKET
    assert ways.foreign(Way.WEBSOCKET, 9.0) is None
    late = 7.0 + AGAIN_S
    assert ways.first(late) is Way.DIRECT
    assert ways.foreign(Way.DIRECT, late) is Way.WEBSOCKET
    assert ways.first(late + 1) is Way.WEBSOCKET, "it was tried once"


def test_a_slow_server_drives_nobody_into_a_websocket_soon() -> None:
    ways = Ways()
    tried = []
    for attempt in range(9):
        tried.append(ways.first(attempt))
        ways.stalled(tried[-1], attempt)
    assert tried == [
        Way.DIRECT, Way.SMALL, Way.DIRECT, Way.SMALL, Way.WEBSOCKET, Way.DIRECT, Way.SMALL, Way.DIRECT, Way.WEBSOCKET,
    ]  # fmt: skip
    ways.worked(Way.DIRECT, 10.0)
    ways.stalled(Way.DIRECT, 11.0)
    ways.stalled(Way.DIRECT, 12.0)
    assert ways.current is Way.SMALL


def test_a_way_that_has_worked_gets_another_chance() -> None:
    ways = Ways()
    ways.worked(Way.DIRECT, 1.0)
    ways.stalled(Way.DIRECT, 2.0)
    assert ways.first(3.0) == Way.DIRECT
    ways.stalled(Way.DIRECT, 13.0)
    assert ways.first(14.0) == Way.SMALL
    ways.worked(Way.SMALL, 15.0)
    ways.stalled(Way.SMALL, 20.0)
    assert ways.first(21.0) == Way.SMALL


def test_a_fixed_way_stays() -> None:
    ways = Ways(Way.WEBSOCKET)
    ways.stalled(Way.WEBSOCKET, 1.0)
    assert ways.foreign(Way.WEBSOCKET, 2.0) is None
    assert ways.first(10 * AGAIN_S) is Way.WEBSOCKET
