"""The pretend cloud's memory on disk: one JSON file, changed by one process at a time, replaced whole."""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from atoll.errors import Refused
from atoll.host.files import write_private
from providers.sim.cloud import Cloud
from providers.sim.faults import Fault, parse_faults

INVENTORY, FAULTS = "inventory.json", "faults.json"


class FileInventory:
    """`inventory.json`, `faults.json` and a lock file in `directory`, which is made where missing."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._read: tuple[tuple[int, int], tuple[Fault, ...]] | None = None

    @contextmanager
    def change(self) -> Iterator[Cloud]:
        """Give the cloud to one caller at a time, over all processes; write it back if it changed."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._directory / INVENTORY
        with (self._directory / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = path.read_bytes() if path.exists() else b""
            cloud = _decode(before, path) if before else Cloud()
            try:
                yield cloud
            finally:
                after = msgspec.json.format(msgspec.json.encode(cloud), indent=1)
                if after != before:
                    write_private(path, after)

    def faults(self) -> tuple[Fault, ...] | None:
        """Return the faults of `faults.json`, read again whenever it was replaced; None when there is none."""
        path = self._directory / FAULTS
        try:
            stat = path.stat()
            if self._read is None or self._read[0] != (stat.st_ino, stat.st_mtime_ns):
                document = json.loads(path.read_bytes())
                self._read = (stat.st_ino, stat.st_mtime_ns), parse_faults(document, FAULTS)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise Refused(f"{path} is not JSON: {error}", hint="correct or delete it") from error
        return self._read[1]


def set_faults(directory: Path, document: Mapping[str, object]) -> None:
    """Set the faults of the cloud in `directory` from now on; an empty mapping heals it.

    They replace those of the provider's settings. Rules that were used up before begin anew only under
    another `id`. Raises `Invalid` when the document is wrong.
    """
    parse_faults(document, FAULTS)
    write_private(directory / FAULTS, json.dumps(document, indent=1))


def _decode(raw: bytes, path: Path) -> Cloud:
    try:
        return msgspec.json.decode(raw, type=Cloud)
    except msgspec.MsgspecError as error:
        raise Refused(f"{path} cannot be read: {error}", hint="it was edited or is of another version") from error
