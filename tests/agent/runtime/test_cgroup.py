"""Fences on pretended cgroup trees of every kind: what cannot be held is said."""

from pathlib import Path

import pytest

from agent.runtime.cgroup import Fence, Fences
from atoll.slots import MIB, Slots

SLOTS = Slots(cpu=1500, memory=64 * MIB)


@pytest.fixture
def version1(tmp_path: Path) -> Path:
    for kind in ("cpu", "memory", "pids"):
        (tmp_path / kind).mkdir()
    return tmp_path


@pytest.fixture
def version2(tmp_path: Path) -> Path:
    for folder in (tmp_path, tmp_path / "atoll", tmp_path / "atoll" / "a-1", tmp_path / "atoll" / "a-1" / "s-1.1.0"):
        folder.mkdir(exist_ok=True)
        (folder / "cgroup.controllers").write_text("cpu memory pids")
    return tmp_path


def read(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir() if not file.name.startswith("cgroup.")}


def test_version_1(version1: Path) -> None:
    fence = Fences("a-1", version1).make("s-1.1.0", SLOTS)
    assert fence.text == "enforced"
    assert len(fence.paths) == 3
    assert read(version1 / "cpu/atoll/a-1/s-1.1.0") == {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "150000"}
    assert read(version1 / "memory/atoll/a-1/s-1.1.0") == {"memory.limit_in_bytes": str(64 * MIB)}
    assert read(version1 / "pids/atoll/a-1/s-1.1.0") == {"pids.max": "8192"}


def test_version_2(version2: Path) -> None:
    fence = Fences("a-1", version2).make("s-1.1.0", SLOTS)
    assert fence.text == "enforced"
    assert read(version2 / "atoll/a-1/s-1.1.0") == {
        "cpu.max": "150000 100000",
        "memory.max": str(64 * MIB),
        "memory.oom.group": "1",
        "pids.max": "8192",
    }
    assert [Path(join).name for join in fence.joins] == ["cgroup.procs"]


def test_version_2_with_controllers_that_are_not_delegated(version2: Path) -> None:
    (version2 / "atoll/a-1/s-1.1.0/cgroup.controllers").write_text("pids\n")
    fence = Fences("a-1", version2).make("s-1.1.0", SLOTS)
    assert fence.text == "not enforced (cpu memory: the cgroup controller is not available)"
    assert read(version2 / "atoll/a-1/s-1.1.0") == {"pids.max": "8192"}


def test_a_machine_without_cgroups(tmp_path: Path) -> None:
    fence = Fences("a-1", tmp_path).make("s-1.1.0", SLOTS)
    assert fence.text == "not enforced (cpu memory pids: this machine has no such cgroup controller)"
    assert fence.joins == []


def test_a_tree_that_cannot_be_written(version1: Path) -> None:
    (version1 / "memory" / "atoll").write_text("in the way")
    text = Fences("a-1", version1).make("s-1.1.0", SLOTS).text
    assert text.startswith("not enforced (memory: ")


def test_a_process_outside_its_cgroup_is_not_limited(version1: Path) -> None:
    fence = Fences("a-1", version1).make("s-1.1.0", SLOTS)
    for path in fence.paths:
        (path / "cgroup.procs").write_text("17\n18\n")
    assert fence.checked(17) == fence
    assert fence.pids() == [17, 18]
    assert fence.checked(99).text == "not enforced (cpu memory pids: the process is not in its cgroup)"


@pytest.mark.parametrize(
    ("file", "text", "found"),
    [
        ("memory.events", "low 0\nhigh 0\nmax 9\noom 1\noom_kill 1\n", True),
        ("memory.events", "low 0\noom_kill 0\n", False),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", True),
    ],
)
def test_out_of_memory_is_seen(tmp_path: Path, file: str, text: str, found: bool) -> None:
    (tmp_path / file).write_text(text)
    assert Fence((("memory", str(tmp_path)),)).out_of_memory() is found
