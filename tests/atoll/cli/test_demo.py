"""The demo's programs print what the demo expects of them (the play itself is run by `make demo`)."""

import subprocess

import pytest

from atoll.cli.demo import work
from atoll.cli.demo.stage import Stage


@pytest.mark.parametrize("number", range(5))
def test_a_program_and_its_other_solution_agree(number: int) -> None:
    each = work.batch("x", number, 0.1)
    done = subprocess.run(each.spec.command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == each.expected


def test_the_plot_has_enough_sessions() -> None:
    works = [*work.first_wave(), *work.second_wave(), *work.specials()]
    names = [each.spec.name for each in works]
    assert len(names) == len(set(names)) >= 30
    protected, gang, app = work.specials()
    assert protected.spec.lifetime.protect
    assert gang.spec.nodes == 2
    assert app.spec.apps == {"squares": 0}


def test_the_stage_finds_what_it_started_and_leaves_nothing() -> None:
    stage = Stage()
    with subprocess.Popen(["sleep", "100"], env={"ATOLL_HOME": str(stage.home)}) as process:
        assert stage.processes() == [process.pid]
        stage.kill()
        assert process.wait(5) == -9
    assert stage.wait_empty(1) == []
    assert stage.remove()
