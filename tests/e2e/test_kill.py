"""`kill -9` of the control plane, of the agent, of both, while 20 sessions run: each finishes once, truly."""

from pathlib import Path

import pytest

from tests.e2e.installation import ENDED, Installation

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
SESSIONS = 20
LINES = 40
PROGRAM = f"""
echo start >> "$MARKS/$ATOLL_INDEX"
for n in $(seq 1 {LINES}); do
    while [ $n = {LINES // 2} ] && ! [ -e "$MARKS/go" ]; do sleep 0.2; done
    echo "$ATOLL_INDEX line $n"
    sleep 0.2
done
echo "$ATOLL_INDEX done" >&2
exit $((ATOLL_INDEX % 5))
"""


@pytest.mark.parametrize("victims", [("control",), ("agent",), ("control", "agent")], ids="-".join)
def test_all_sessions_finish_once_after(victims: tuple[str, ...], fresh: Installation, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    fresh.up()
    size = ["--cpu", "0.1", "--memory", "64MiB", "--count", str(SESSIONS), "--env", f"MARKS={marks}"]
    names = fresh.atoll("run", "--detach", *size, "--", "sh", "-c", PROGRAM).split()
    assert len(names) == SESSIONS
    fresh.wait(names, {"running"})
    (marks / "go").touch()

    fresh.kill(*victims)
    fresh.up()

    ended = fresh.wait(names, ENDED, within=90)
    indexes = set()
    for view in ended:
        lines = fresh.atoll("logs", "--channel", "out", view["name"]).splitlines()
        index = int(lines[0].split()[0])
        indexes.add(index)
        assert lines == [f"{index} line {n}" for n in range(1, LINES + 1)], f"log of {view['name']}"
        assert fresh.call("logs", "--channel", "err", view["name"]).stderr.splitlines() == [f"{index} done"]
        assert view["exit_code"] == index % 5
        assert view["state"] == ("failed" if index % 5 else "succeeded")
        assert (view["attempt"], view["interruptions"]) == (1, 0)
        assert (marks / str(index)).read_text() == "start\n", "it ran once"
    assert indexes == set(range(SESSIONS))
