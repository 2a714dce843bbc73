"""The terms a relay serves by: kept on disk, never behind an expulsion."""

from pathlib import Path

from atoll.clock import Clock
from federation.relay.home import RelayHome
from federation.relay.terms import Terms
from tunnel import wire


class Hands(Clock):
    """A clock set by hand: the wall's and the other."""

    def __init__(self) -> None:
        self.wall, self.passed = 5000.0, 10.0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.passed


def given(*refused: str, now: float = 9000.0) -> wire.RelayTerms:
    return wire.RelayTerms(protocol=3, grant_key=b"k" * 32, now=now, refused=list(refused))


def test_the_control_planes_time_counts_and_does_not_jump(tmp_path: Path) -> None:
    clock = Hands()
    terms = Terms(RelayHome(tmp_path), clock)
    assert terms.now() == 5000.0
    terms.take(given())
    clock.wall, clock.passed = 0.0, 12.5
    assert terms.now() == 9002.5


def test_they_are_kept_for_a_relay_that_is_started_without_its_control_plane(tmp_path: Path) -> None:
    terms = Terms(RelayHome(tmp_path), Hands())
    assert terms.grant_key == b""
    terms.take(given("a-1"))
    terms.expel("a-2", "revoked")
    again = Terms(RelayHome(tmp_path), Hands())
    assert again.grant_key == b"k" * 32
    assert [agent for agent in ("a-1", "a-2", "a-3") if again.refuses(agent)] == ["a-1", "a-2"]
    assert (tmp_path / "terms.json").stat().st_mode & 0o777 == 0o600


def test_who_is_expelled_while_the_terms_are_on_their_way_stays_out(tmp_path: Path) -> None:
    told: list[str] = []
    terms = Terms(RelayHome(tmp_path), Hands())
    terms.on_refused = lambda agent, _reason: told.append(agent)
    terms.asked()
    terms.expel("a-2", "revoked")
    terms.take(given("a-1"))
    assert terms.refuses("a-2")
    assert told == ["a-2", "a-1"]


def test_who_belongs_again_is_let_in(tmp_path: Path) -> None:
    terms = Terms(RelayHome(tmp_path), Hands())
    terms.take(given("a-1"))
    terms.asked()
    terms.take(given())
    assert not terms.refuses("a-1")


def test_a_full_disk_keeps_nobody_in(tmp_path: Path) -> None:
    told: list[str] = []
    (tmp_path / "file").touch()
    terms = Terms(RelayHome(tmp_path / "file" / "below"), Hands())
    terms.on_refused = lambda agent, _reason: told.append(agent)
    terms.take(given("a-1"))
    terms.expel("a-2", "revoked")
    assert told == ["a-1", "a-2"]
    assert terms.grant_key == b"k" * 32


def test_a_damaged_file_is_no_terms(tmp_path: Path) -> None:
    (tmp_path / "terms.json").write_text('{"grant_key": 5}')
    assert Terms(RelayHome(tmp_path), Hands()).grant_key == b""
