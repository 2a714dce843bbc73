"""What every log store promises: each sentence of `LogStore` in `federation.ports`."""

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from federation.ports import LogStore
from federation.store.logs import FileLogs
from tests.fakes.store import MemoryLogs

RUN = "s-1.1.0"


async def test_bytes_are_kept_per_run_and_channel(logs: LogStore) -> None:
    assert await logs.size(RUN, "out") == 0
    assert await logs.read(RUN, "out", 0, 10) == b""
    assert await logs.write(RUN, "out", 0, b"hello ") == 6
    assert await logs.write(RUN, "out", 6, b"world") == 11
    assert await logs.write(RUN, "err", 0, b"oh") == 2
    assert await logs.write("s-1.2.0", "out", 0, b"again") == 5
    assert await logs.size(RUN, "out") == 11
    assert await logs.read(RUN, "out", 0, 100) == b"hello world"
    assert await logs.read(RUN, "out", 4, 3) == b"o w"
    assert await logs.read(RUN, "out", 11, 3) == b""
    assert await logs.read(RUN, "out", 99, 3) == b""


async def test_a_repeat_changes_nothing(logs: LogStore) -> None:
    await logs.write(RUN, "out", 0, b"abcdef")
    assert await logs.write(RUN, "out", 0, b"ABCDEF") == 6
    assert await logs.write(RUN, "out", 2, b"") == 6
    assert await logs.write(RUN, "out", 4, b"EFgh") == 8
    assert await logs.read(RUN, "out", 0, 100) == b"abcdefgh"


async def test_a_gap_is_said_in_one_line_and_later_offsets_stay_true(logs: LogStore) -> None:
    await logs.write(RUN, "out", 0, b"begin\n")
    assert await logs.write(RUN, "out", 1_000_006, b"end\n") == 1_000_010
    head = await logs.read(RUN, "out", 0, 60)
    assert head.rstrip(b"\0") == b"begin\n[atoll: 1000000 bytes of output were dropped here]\n"
    assert await logs.read(RUN, "out", 1_000_006, 60) == b"end\n"
    assert set(await logs.read(RUN, "out", 100, 999_000)) == {0}


async def test_a_gap_too_short_for_the_line_keeps_its_length(logs: LogStore) -> None:
    assert await logs.write(RUN, "out", 3, b"x") == 4
    assert await logs.read(RUN, "out", 0, 9) == b"[a\nx"
    assert await logs.write(RUN, "out", 5, b"y") == 6
    assert await logs.read(RUN, "out", 4, 9) == b"\ny"


async def test_a_gap_without_data_is_kept_too(logs: LogStore) -> None:
    assert await logs.write(RUN, "out", 200, b"") == 200
    assert await logs.size(RUN, "out") == 200


async def test_many_at_once_lose_nothing(logs: LogStore) -> None:
    async def flood(run: str) -> None:
        for number in range(20):
            await logs.write(run, "out", number * 4, b"%03d\n" % number)

    runs = [f"s-{number}.1.0" for number in range(30)]
    await asyncio.gather(*(flood(run) for run in runs))
    whole = b"".join(b"%03d\n" % number for number in range(20))
    assert [await logs.read(run, "out", 0, 999) for run in runs] == [whole] * len(runs)


WRITES = st.lists(st.tuples(st.integers(0, 300), st.binary(max_size=80)), max_size=20)


@given(WRITES)
def test_in_memory_the_size_only_grows_and_kept_bytes_never_change(writes: list[tuple[int, bytes]]) -> None:
    asyncio.run(check(MemoryLogs(), writes))


@settings(max_examples=25)
@given(WRITES)
def test_in_files_the_size_only_grows_and_kept_bytes_never_change(writes: list[tuple[int, bytes]]) -> None:
    async def run(directory: str) -> None:
        logs = FileLogs(Path(directory))
        await check(logs, writes)
        await logs.close()

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(run(directory))


async def check(logs: LogStore, writes: list[tuple[int, bytes]]) -> None:
    kept = b""
    for offset, data in writes:
        size = await logs.write(RUN, "out", offset, data)
        now = await logs.read(RUN, "out", 0, 10_000)
        assert size == await logs.size(RUN, "out") == len(now) == max(len(kept), offset + len(data))
        assert now.startswith(kept)
        if offset >= len(kept):
            assert now[offset:] == data
        kept = now
