"""A run's directory on disk: its order to the shim, its identity, its output, and how it ended."""

import contextlib
import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from agent.runtime.cgroup import Fence
from agent.runtime.shim import boot_id, start_time

_PUNCH_HOLE = 0x02 | 0x01  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
_BLOCK = 4096


class Meta(msgspec.Struct, frozen=True):
    """What the next process of the agent must know of a running session."""

    apps: dict[str, int]
    fence: Fence


class Identity(msgspec.Struct, frozen=True):
    """Which processes a run is: ids alone may be used again, so start times and the boot go with them."""

    shim: int
    shim_start: str
    main: int
    main_start: str
    boot: str

    @property
    def alive(self) -> bool:
        """Whether the shim is still this very process."""
        return self.boot == boot_id() and start_time(self.shim) == self.shim_start

    @property
    def running(self) -> bool:
        """Whether the main process is still this very process."""
        return self.boot == boot_id() and start_time(self.main) == self.main_start


class Folder:
    """The files of one run, under `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._bases: dict[str, int] | None = None

    def create(self, argv: Sequence[str], cwd: str, stdin: str, meta: Meta) -> None:
        """Write the order. `cwd` empty: a fresh directory. Raises `OSError`."""
        self.path.mkdir(mode=0o700, parents=True)
        if not cwd:
            (self.path / "work").mkdir()
        self._write("argv", "\0".join(argv))
        self._write("cwd", cwd or str(self.path / "work"))
        self._write("joins", "\n".join(meta.fence.joins))
        self._write("in", stdin)
        (self.path / "meta").write_bytes(msgspec.json.encode(meta))

    def keep(self, until: float) -> None:
        """Write down until when (monotonic seconds) the shim may let the run live. Raises `OSError`."""
        fresh = self.path / "lease.new"
        fresh.write_text(repr(until))
        fresh.rename(self.path / "lease")

    @property
    def meta(self) -> Meta:
        """What was noted at the start; empty when that is lost."""
        try:
            return msgspec.json.decode((self.path / "meta").read_bytes(), type=Meta)
        except (OSError, msgspec.MsgspecError):
            return Meta({}, Fence())

    @property
    def identity(self) -> Identity | None:
        """The processes, once the shim has written them down."""
        try:
            shim, shim_start, main, main_start, boot = (self.path / "pid").read_text().split(" ")
        except (OSError, ValueError):
            return None
        return Identity(int(shim), shim_start, int(main), main_start, boot)

    @property
    def exit_code(self) -> int | None:
        """The exit code, once the run is over and its shim lived to write it."""
        try:
            return int((self.path / "exit").read_text())
        except (OSError, ValueError):
            return None

    def size(self, channel: str) -> int:
        """Return the offset after the last byte of a channel."""
        try:
            return (self.path / channel).stat().st_size
        except OSError:
            return 0

    def base(self, channel: str) -> int:
        """Return the lowest offset of a channel that was not freed."""
        if self._bases is None:
            self._bases = {}
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                self._bases = msgspec.json.decode((self.path / "base").read_bytes(), type=dict[str, int])
        return self._bases.get(channel, 0)

    def read(self, channel: str, offset: int, limit: int) -> bytes:
        """Return up to `limit` bytes from `offset` on."""
        try:
            descriptor = os.open(self.path / channel, os.O_RDONLY)
        except OSError:
            return b""
        try:
            return os.pread(descriptor, limit, offset)
        except OSError:
            return b""
        finally:
            os.close(descriptor)

    def free(self, channel: str, below: int) -> None:
        """Give back the space of whole blocks below an offset, where the file system can."""
        base = self.base(channel)
        end = below // _BLOCK * _BLOCK
        if end <= base or self._bases is None:
            return
        self._bases[channel] = end
        with contextlib.suppress(OSError):
            fresh = self.path / "base.new"
            fresh.write_bytes(msgspec.json.encode(self._bases))
            fresh.replace(self.path / "base")
            descriptor = os.open(self.path / channel, os.O_RDWR)
            try:
                _punch(descriptor, base, end - base)
            finally:
                os.close(descriptor)

    def _write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text, encoding="utf-8", errors="surrogateescape", newline="")


def _punch(descriptor: int, offset: int, length: int) -> None:
    """Deallocate a part of a file; does nothing where the file system cannot."""
    fallocate = getattr(ctypes.CDLL(None), "fallocate", None)
    if fallocate is not None:
        fallocate(descriptor, _PUNCH_HOLE, ctypes.c_int64(offset), ctypes.c_int64(length))
