"""Create calls under way: their continuation tokens on disk, so that who comes after a crash learns how they ended."""

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A create call that Azure accepted. `code` and `message` are why it failed, once that is known."""

    token: str
    code: str = ""
    message: str = ""


class Operations:
    """One file for each machine below `directory`, readable by its owner only.

    Losing a file loses nothing but the reason: the machine itself still tells that it failed.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self, name: str) -> Operation | None:
        """Return the operation of a machine, None where none is noted or the note cannot be read."""
        try:
            return Operation(**json.loads((self._directory / name).read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def write(self, name: str, operation: Operation) -> None:
        """Note an operation: all of it, or none of it."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._directory / name
        part = path.with_name(f"{name}.part")
        with suppress(FileNotFoundError):
            part.unlink()
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(asdict(operation), file)
        part.replace(path)

    def forget(self, name: str) -> None:
        """Drop a machine's note; well if there is none."""
        (self._directory / name).unlink(missing_ok=True)
