"""The log pump: every byte once and in order, bounded on the link and on disk."""

from hypothesis import given
from hypothesis import strategies as st

from agent.logpump import LogPump, Piece


class Wire:
    """Holds what a run wrote and what the control plane stored."""

    def __init__(self, **bounds: int) -> None:
        self.pump = LogPump(**bounds)
        self.written = {("r", "out"): b"", ("r", "err"): b""}
        self.sent: list[tuple[str, int, bytes]] = []
        self.stored = {"out": 0, "err": 0}

    def write(self, channel: str, data: bytes) -> int:
        self.written["r", channel] += data
        return self.pump.grown("r", channel, len(self.written["r", channel]))

    def ship(self) -> bool:
        return self.pump.send(self._read, lambda piece, data: self.sent.append((piece.channel, piece.offset, data)))

    def _read(self, piece: Piece) -> bytes:
        return self.written[piece.run, piece.channel][piece.offset : piece.offset + piece.limit]


def test_a_window_of_unacknowledged_bytes_is_never_passed() -> None:
    wire = Wire(window=100)
    wire.write("out", b"x" * 250)
    assert wire.ship()
    assert sum(len(data) for _, _, data in wire.sent) == wire.pump.in_flight == 100
    wire.ship()
    assert wire.pump.in_flight == 100
    assert wire.pump.acked("r", "out", 60) == 60
    wire.ship()
    assert wire.sent[-1][:2] == ("out", 100)
    assert wire.pump.in_flight == 100


def test_channels_take_turns() -> None:
    wire = Wire(window=80_000)
    wire.write("out", b"x" * 200_000)
    wire.write("err", b"oops")
    wire.ship()
    assert [channel for channel, _, _ in wire.sent[:2]] == ["out", "err"]


def test_a_flood_does_not_starve_another_channel() -> None:
    wire = Wire(window=100)
    wire.write("out", b"x" * 10_000)
    wire.ship()
    wire.write("err", b"hi")
    for acked in (10, 20):
        wire.pump.acked("r", "out", acked)
        wire.ship()
    assert ("err", 0, b"hi") in wire.sent


def test_a_new_link_begins_at_the_last_acknowledged_byte() -> None:
    wire = Wire()
    wire.write("out", b"0123456789")
    wire.ship()
    wire.pump.acked("r", "out", 4)
    wire.pump.restart()
    wire.ship()
    assert wire.sent[-1] == ("out", 4, b"456789")


def test_an_acknowledgement_beyond_what_was_sent_skips_ahead() -> None:
    """After a restart of the agent: the control plane has the output already and says so."""
    wire = Wire(window=4)
    wire.write("out", b"0123456789")
    wire.ship()
    assert wire.pump.acked("r", "out", 8) == 8
    wire.ship()
    assert wire.sent[-1] == ("out", 8, b"89")
    assert wire.pump.acked("r", "out", 3) == 0
    assert wire.pump.acked("r", "out", 1000) == 10


def test_beyond_the_spool_the_oldest_is_dropped_and_the_offset_jumps() -> None:
    wire = Wire(spool=100)
    assert wire.write("out", b"x" * 100) == 0
    assert wire.write("out", b"y" * 50) == 50
    wire.ship()
    assert wire.sent[0] == ("out", 50, b"x" * 50 + b"y" * 50)
    assert wire.pump.pending == 100


def test_forgotten_and_unknown_runs_are_nothing() -> None:
    wire = Wire()
    wire.write("out", b"abc")
    wire.pump.forget("r")
    assert not wire.ship()
    assert wire.sent == []
    assert wire.pump.acked("r", "out", 2) == 0


Steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 60)),
        st.tuples(st.just("ack"), st.integers(0, 300)),
        st.tuples(st.just("cut"), st.just(0)),
    ),
    max_size=40,
)


@given(Steps)
def test_every_byte_arrives_once_whatever_happens(steps: list[tuple[str, int]]) -> None:
    wire = Wire(window=50)
    received = b""
    for kind, number in [*steps, *[("ack", 10_000)] * 60]:
        if kind == "write":
            wire.write("out", bytes(number % 256 for _ in range(number)))
        elif kind == "ack":
            wire.pump.acked("r", "out", min(len(received), number))
        else:
            wire.pump.restart()
        wire.sent.clear()
        wire.ship()
        for _, offset, data in wire.sent:
            assert offset <= len(received), "a gap"
            received += data[len(received) - offset :]
        assert wire.pump.in_flight <= 50
    assert received == wire.written["r", "out"]
