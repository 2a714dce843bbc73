"""Logs in files: restarts, many files, full disks, and names that would leave the directory."""

import asyncio
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from atoll.errors import AtollError, Invalid, Refused
from federation.store.logs import FileLogs

RUN = "s-1.1.0"


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """Let the kernel refuse writes beyond `size` bytes of any file: what a full disk looks like."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_new_process_goes_on_where_the_old_one_ended(tmp_path: Path) -> None:
    old = FileLogs(tmp_path)
    assert await old.write(RUN, "out", 0, b"before") == 6
    new = FileLogs(tmp_path)
    assert await new.size(RUN, "out") == 6
    assert await new.write(RUN, "out", 3, b"ore, after") == 13
    assert await new.read(RUN, "out", 0, 99) == b"before, after"
    assert (tmp_path / "s-1" / "1.0.out").read_bytes() == b"before, after"
    await old.close()
    await new.close()


async def test_many_logs_keep_few_files_open(tmp_path: Path) -> None:
    logs = FileLogs(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for turn in range(2):
        for number in range(200):
            assert await logs.write(f"s-{number}.1.0", "out", turn, b"x") == turn + 1
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= 130
    await logs.close()


async def test_a_full_disk_refuses_and_later_writes_go_on(tmp_path: Path) -> None:
    logs = FileLogs(tmp_path)
    await logs.write(RUN, "out", 0, b"kept")
    with files_end_at(1000), pytest.raises(AtollError):
        await logs.write(RUN, "out", 4, bytes(2000))
    assert await logs.size(RUN, "out") == 4
    with files_end_at(1000), pytest.raises(AtollError):
        await logs.write(RUN, "out", 5000, b"far")
    assert await logs.write(RUN, "out", 4, b" on") == 7
    assert await logs.read(RUN, "out", 0, 9999) == b"kept on"
    await logs.close()


async def test_a_cancelled_write_does_not_disturb_the_next(tmp_path: Path) -> None:
    logs = FileLogs(tmp_path)
    for turn in range(20):
        task = asyncio.create_task(logs.write(RUN, "out", turn, b"x"))
        for _ in range(turn % 5):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await logs.write(RUN, "out", turn, b"x") == turn + 1
    assert await logs.read(RUN, "out", 0, 99) == b"x" * 20
    await logs.close()


@pytest.mark.parametrize("run", ["../etc.1.0", "a/b.1.0", ".1.0", "s-1", "s-1.x.0", "a\0b.1.0"])
async def test_only_run_ids_name_files(tmp_path: Path, run: str) -> None:
    logs = FileLogs(tmp_path / "logs")
    for call in (logs.size(run, "out"), logs.write(run, "out", 0, b"x"), logs.read(run, "out", 0, 1)):
        with pytest.raises(Invalid):
            await call
    assert list(tmp_path.iterdir()) == []
    await logs.close()


async def test_only_out_and_err_are_channels(tmp_path: Path) -> None:
    logs = FileLogs(tmp_path)
    with pytest.raises(Invalid):
        await logs.write(RUN, "../x", 0, b"x")
    await logs.close()


async def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file")
    logs = FileLogs(tmp_path / "logs")
    with pytest.raises(Refused, match="cannot be written"):
        await logs.write(RUN, "out", 0, b"x")
    await logs.close()
