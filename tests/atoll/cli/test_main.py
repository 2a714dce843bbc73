"""The command line's frame: help that imports nothing, mistakes that are named, errors that have a code."""

import os
import subprocess
import sys
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import pytest

from atoll.cli.completion import words
from atoll.cli.main import COMMANDS, NAMES, configure, main
from atoll.cli.parser import Parser
from atoll.client import profile
from tests.atoll.plane import Plane

HEAVY = ("asyncio", "aiohttp", "sqlalchemy", "msgspec", "ssl", "yaml", "structlog", "boto3", "google", "azure")


def _python(*words: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env={**os.environ, **environ}, check=False
    )


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from atoll.cli.main import main; assert main(['--help']) == 0;"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = _python("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_is_quick() -> None:
    def best(*words: str) -> float:
        runs = []
        for _ in range(7):
            before = getrusage(RUSAGE_CHILDREN)
            _python(*words)
            after = getrusage(RUSAGE_CHILDREN)
            runs.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return min(runs)

    # It only computes: this is how long it takes where nothing else runs.
    assert best("-m", "atoll", "--help") - best("-c", "pass") <= 0.06


def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == main(["--help"]) == 0
    told = capsys.readouterr().out
    for command in COMMANDS:
        assert command.about in told
        assert main([command.name, "--help"]) == 0
        own = capsys.readouterr().out
        assert command.example in own
        parser = Parser(prog=command.name)
        configure(command)(parser)
        for verb, _ in parser.below():
            assert main([command.name, verb, "--help"]) == 0
            assert "example:" in capsys.readouterr().out


def test_the_commands_of_the_issue_are_there() -> None:
    wanted = "up down run ps logs stop why offers forward token agent group provider apply get describe watch cost"
    assert {*wanted.split(), "sweep", "doctor"} <= set(NAMES)


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("ruun", "unknown command 'ruun'", "did you mean 'run'?"),
        ("--halp", "unknown option '--halp'", ""),
        ("run --memroy 2 -- x", "unknown flag --memroy", "did you mean '--memory'?"),
        ("run", "no command was given", "after --"),
        ("run --", "session.command is missing", ""),
        ("run --cpu many -- x", "session.resources.cpu must be a number", ""),
        ("run --count 0 -- x", "--count is 0", "1 to 10000"),
        ("run --count x -- x", "argument --count: invalid int value", "--help"),
        ("run --env SEED -- x", "--env 'SEED' is not KEY=VALUE", ""),
        ("run --app web=x -- x", "is not a port", ""),
        ("run -o json -- x", "-o works with --detach only", ""),
        ("run -f none.yaml", "cannot read none.yaml", ""),
        ("ps extra", "unexpected argument 'extra'", ""),
        ("ps -o xml", "'xml' is not possible here", "table"),
        ("group crate x", "'crate' is not possible here", "did you mean 'create'?"),
        ("group create x --spto", "unknown flag --spto", "--spot"),
        ("group create Big --provider sim", "not a valid group name", ""),
        ("get sesions", "unknown kind 'sesions'", "sessions"),
        ("forward x y", "is not LOCAL:REMOTE", "8080:80"),
        ("token create", "say which token", ""),
        ("token create --site a --ttl soon", "is not a duration", ""),
        ("login nowhere:x", "is not the URL", ""),
        ("login http://127.0.0.1:1 --pin zz", "the pin is not a SHA-256", ""),
        ("apply", "the following arguments are required: -f/--file", ""),
    ],
)
def test_a_mistake_is_one_line_a_hint_and_120(
    line: str, message: str, hint: str, home: Path, capsys: pytest.CaptureFixture[str], logged_in: Plane
) -> None:
    assert main(line.split(" ")) == 120
    told = capsys.readouterr()
    lines = told.err.splitlines()
    assert message in lines[0]
    assert lines[0].startswith("error: ")
    assert hint in "".join(lines[1:])
    assert len(lines) <= 2
    assert not told.out


@pytest.mark.parametrize(("line", "code"), [("ps", 124), ("logs x", 124), ("why x", 124), ("doctor", 125)])
def test_without_a_control_plane(line: str, code: int, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split(" ")) == code
    told = capsys.readouterr()
    assert "atoll up" in told.out + told.err


def test_codes_by_kind_of_error(logged_in: Plane, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["logs", "nobody"]) == 122
    assert main(["site", "create", "hall"]) == 0
    assert main(["site", "create", "hall"]) == 123
    profile.save(profile.Profile(url=logged_in.url, token="atk_wrong"))
    assert main(["ps"]) == 121
    assert "Traceback" not in capsys.readouterr().err


def test_an_internal_error_shows_no_traceback(logged_in: Plane) -> None:
    # A view that the server never sends: the profile's URL leads to a path that answers no JSON.
    profile.save(profile.Profile(url=logged_in.url + "/broken?", token="atk_test"))
    done = _python("-m", "atoll", "ps")
    assert done.returncode in range(120, 126)
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert "Traceback" in _python("-m", "atoll", "ps", ATOLL_DEBUG="1").stderr


def test_a_closed_pipe_is_quiet(logged_in: Plane) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m atoll completion bash | true"], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""


def test_completion_knows_verbs_and_flags(capsys: pytest.CaptureFixture[str]) -> None:
    known = words()
    assert "create" in known["group"]
    assert "--memory" in known["run"]
    for shell in ("bash", "zsh", "fish"):
        assert main(["completion", shell]) == 0
        assert "provider" in capsys.readouterr().out
    main(["completion", "bash"])
    script = capsys.readouterr().out
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
