"""A journal in memory: survives the agent's process in a test as a file would."""

from agent.entry import Entry, Terms


class MemoryJournal:
    """Keeps records in a dict; `full` makes every write fail as a full disk does."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.terms = Terms()
        self.full = False

    def load(self) -> tuple[list[Entry], Terms]:
        return [self.entries[run] for run in sorted(self.entries)], self.terms

    def put(self, entry: Entry) -> None:
        self._check()
        self.entries[entry.run] = entry

    def drop(self, run: str) -> None:
        self.entries.pop(run, None)

    def put_terms(self, terms: Terms) -> None:
        self._check()
        self.terms = terms

    def _check(self) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
