"""The first minute, with nothing but loopback: up, run, the command's output and exit code, and how soon."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.installation import Installation
from tests.e2e.namespaces import loopback_only
from tests.e2e.processes import alive, arguments, family, listens, of_home
from tests.e2e.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("first_light")]
GENEROUS_S = 10.0


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with loopback_only() as enter, Installation(tmp_path_factory.mktemp("alone"), prefix=enter) as installation:
        began = time.monotonic()
        installation.up()
        print(f"up ready after {time.monotonic() - began:.2f} s")
        yield installation


def test_the_first_command_prints_its_result(
    alone: Installation, record_property: Callable[[str, object], None]
) -> None:
    began = time.monotonic()
    assert alone.atoll("run", "--", "python3", "-c", "print(6*7)") == "42\n"
    took = time.monotonic() - began
    record_property("first_output_s", f"{took:.2f}")
    print(f"first output after {took:.2f} s (target 2 s)")
    assert took < GENEROUS_S


def test_the_exit_code_is_the_commands(alone: Installation) -> None:
    alone.atoll("run", "--", "sh", "-c", "exit 7", code=7)


def test_output_and_error_stay_apart(alone: Installation) -> None:
    done = alone.call("run", "--", "sh", "-c", "echo out; echo err >&2")
    assert (done.returncode, done.stdout) == (0, "out\n")
    assert "err\n" in done.stderr


def test_a_program_gets_its_environment_input_and_folder(alone: Installation, tmp_path: Path) -> None:
    script = "cat; echo $COLOUR; pwd"
    got = alone.atoll(
        "run", "-i", "--env", "COLOUR=blue", "--workdir", str(tmp_path), "--", "sh", "-c", script, stdin="hello\n"
    )
    assert got == f"hello\nblue\n{tmp_path}\n"


def test_a_command_that_is_not_there_fails_with_a_reason(alone: Installation) -> None:
    done = alone.call("run", "--name", "nowhere", "--", "no-such-program-here")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "no-such-program-here" in done.stderr
    assert alone.session("nowhere")["state"] == "failed"


def test_members_of_a_count_are_told_apart(alone: Installation) -> None:
    names = alone.atoll("run", "--count", "3", "--detach", "--", "sh", "-c", "echo $ATOLL_INDEX").split()
    alone.wait(names, {"succeeded"})
    assert sorted(alone.atoll("logs", name) for name in names) == ["0\n", "1\n", "2\n"]


def test_stop_ends_the_whole_tree(alone: Installation, tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    tree = f"trap '' TERM; setsid sleep 1000 & echo $! > {mark}; wait; sleep 1000"
    name = alone.atoll("run", "--detach", "--name", "stubborn", "--grace", "1s", "--", "sh", "-c", tree).strip()
    until(lambda: mark.exists() and mark.read_text().strip(), "the child's id")
    child = int(mark.read_text())
    assert alive(child)
    alone.atoll("stop", "--wait", "--timeout", "20s", name)
    assert alone.session(name)["state"] == "cancelled"
    until(lambda: not alive(child), "the end of the child that had left its parent's group")


def test_why_explains(alone: Installation) -> None:
    alone.atoll("run", "--name", "explained", "--", "true")
    assert "local" in alone.atoll("why", "explained")


def test_the_agent_listens_on_nothing(alone: Installation) -> None:
    for pid in family(alone.pid("agent")):
        assert listens(pid) == []
    assert listens(alone.pid("control")) != []


def test_a_second_up_adopts_what_runs(alone: Installation) -> None:
    before = (alone.pid("control"), alone.pid("agent"))
    alone.up()
    assert (alone.pid("control"), alone.pid("agent")) == before


def test_secrets_are_for_their_owner_only(alone: Installation) -> None:
    kept = [alone.home / "client.json", alone.home / "agent" / "key.pem", *alone.home.rglob("*key*.pem")]
    assert all(path.stat().st_mode & 0o077 == 0 for path in kept)
    token = json.loads((alone.home / "client.json").read_text())["token"]
    for pid in of_home(alone.home):
        assert token.encode() not in arguments(pid)


def test_down_leaves_no_process(tmp_path: Path) -> None:
    with Installation(tmp_path) as installation:
        installation.up()
        installation.atoll("run", "--", "true")
        installation.atoll("down")
        until(lambda: not of_home(installation.home), "the end of every process")
