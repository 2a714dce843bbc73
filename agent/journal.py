"""The agent's journal: one durable record per run, so that no restart can start a run twice or forget its end."""

import contextlib
import logging
import os
from pathlib import Path
from typing import Protocol

import msgspec

from agent.entry import Entry, Terms

_log = logging.getLogger("atoll.agent.journal")
_entries = msgspec.json.Decoder(Entry)
_terms = msgspec.json.Decoder(Terms)


class Journal(Protocol):
    """Where the agent keeps what must outlive its process."""

    def load(self) -> tuple[list[Entry], Terms]:
        """Return every record, ordered by run id, and the terms last put."""
        ...

    def put(self, entry: Entry) -> None:
        """Make `entry` the record of its run, durably, before returning. Raises `OSError`."""
        ...

    def drop(self, run: str) -> None:
        """Remove a run's record; well if there is none. Raises `OSError`."""
        ...

    def put_terms(self, terms: Terms) -> None:
        """Keep the terms. Raises `OSError`."""
        ...


class FileJournal:
    """One JSON file a run in a directory, replaced atomically and fsynced together with the directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self) -> tuple[list[Entry], Terms]:
        """Read all records; a file that cannot be read as one is set aside as `*.bad` and logged."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        entries = []
        for path in sorted(self._directory.glob("*.run")):
            try:
                entries.append(_entries.decode(path.read_bytes()))
            except msgspec.MsgspecError as error:
                _log.warning("journal record %s is damaged and set aside: %s", path.name, error)
                path.replace(path.with_suffix(".bad"))
        terms = Terms()
        with contextlib.suppress(FileNotFoundError, msgspec.MsgspecError):
            terms = _terms.decode((self._directory / "terms").read_bytes())
        return entries, terms

    def put(self, entry: Entry) -> None:
        """Write the record; durable on return."""
        self._write(f"{entry.run}.run", msgspec.json.encode(entry))

    def drop(self, run: str) -> None:
        """Remove the record."""
        (self._directory / f"{run}.run").unlink(missing_ok=True)

    def put_terms(self, terms: Terms) -> None:
        """Write the terms; durable on return."""
        self._write("terms", msgspec.json.encode(terms))

    def _write(self, name: str, data: bytes) -> None:
        fresh = self._directory / f".{name}.new"
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        fresh.replace(self._directory / name)
        directory = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
