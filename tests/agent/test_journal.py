"""Journals: what was put is there for the next process, whatever lies beside it."""

from pathlib import Path

import pytest

from agent.entry import Entry, Terms
from agent.journal import FileJournal, Journal
from tests.fakes.journal import MemoryJournal

ONE = Entry(run="s-a.1.0", epoch=3, gpus=("GPU-1",), lease_s=60.0)
TWO = Entry(run="s-b.1.0", epoch=4, exited=True, exit_code=7, message="over")


@pytest.fixture(params=["file", "memory"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Journal:
    return FileJournal(tmp_path / "journal") if request.param == "file" else MemoryJournal()


def test_what_was_put_last_is_loaded_in_order(journal: Journal) -> None:
    assert journal.load() == ([], Terms())
    for entry in (TWO, ONE, Entry(run="s-b.1.0", epoch=4), TWO):
        journal.put(entry)
    journal.put_terms(Terms(lease_s=5.0))
    assert journal.load() == ([ONE, TWO], Terms(lease_s=5.0))


def test_a_dropped_record_is_gone_and_dropping_again_is_well(journal: Journal) -> None:
    journal.load()
    journal.put(ONE)
    journal.drop(ONE.run)
    journal.drop(ONE.run)
    assert journal.load()[0] == []


def test_a_damaged_record_is_set_aside(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path)
    journal.put(ONE)
    (tmp_path / "s-c.1.0.run").write_text('{"run": ')
    (tmp_path / ".s-d.1.0.run.new").write_text("half")
    assert journal.load()[0] == [ONE]
    assert (tmp_path / "s-c.1.0.bad").exists()
    assert journal.load()[0] == [ONE]
