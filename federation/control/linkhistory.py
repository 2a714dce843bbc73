"""When each agent's link came and went, and why, since this process began."""

from dataclasses import dataclass

LIMIT = 4096
"""Agents that are not connected are remembered up to this number, the last lost ones."""


@dataclass(slots=True)
class History:
    """One agent's. Times are Unix seconds; `since` is when the present link, or the last one, was made."""

    connected: bool = False
    since: float | None = None
    connects: int = 0
    drops: int = 0
    dropped_at: float | None = None
    reason: str = ""


class LinkHistory:
    """All agents'. `drops` counts losses of all links, those of forgotten agents too."""

    def __init__(self) -> None:
        self._agents: dict[str, History] = {}
        self._gone: dict[str, None] = {}
        self.connects = 0
        self.drops = 0

    def of(self, agent: str) -> History:
        """Return one agent's; a blank one where nothing is known."""
        return self._agents.get(agent, History())

    def came(self, agent: str, now: float) -> None:
        """A link is registered, perhaps in place of another."""
        history = self._agents.setdefault(agent, History())
        self._gone.pop(agent, None)
        history.connected, history.since = True, now
        history.connects += 1
        self.connects += 1

    def went(self, agent: str, reason: str, now: float) -> None:
        """The present link is lost."""
        history = self._agents.setdefault(agent, History())
        history.connected, history.dropped_at, history.reason = False, now, reason
        history.drops += 1
        self.drops += 1
        self._gone[agent] = None
        while len(self._gone) > LIMIT:
            oldest = next(iter(self._gone))
            del self._gone[oldest], self._agents[oldest]
