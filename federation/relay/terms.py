"""By what a relay serves: the key of grants, the control plane's time, and who is no member any more."""

import logging
from collections.abc import Callable

from atoll.clock import Clock
from atoll.errors import AtollError
from federation.relay.home import RelayHome
from tunnel import wire

_log = logging.getLogger("atoll.relay")


class Terms:
    """The last word of the control plane, kept on disk. Without it, the relay goes on by what it has.

    Before the first word of this process, the time is this machine's own.
    """

    def __init__(self, home: RelayHome, clock: Clock) -> None:
        self._home = home
        self._clock = clock
        self._ahead = clock.now() - clock.monotonic()
        self.grant_key, refused = home.terms()
        self._refused = dict.fromkeys(refused)
        self._expelled: dict[str, None] = {}
        self.on_refused: Callable[[str, str], None] = lambda _agent, _reason: None
        """Told of each agent that is no member any more, and why."""

    def now(self) -> float:
        """Return the control plane's time, Unix seconds that never jump by themselves."""
        return self._ahead + self._clock.monotonic()

    def refuses(self, agent: str) -> bool:
        """Say whether an agent is no member any more."""
        return agent in self._refused

    def asked(self) -> None:
        """A new link asks for the terms: who is expelled from here on is not in them yet."""
        self._expelled = {}

    def take(self, terms: wire.RelayTerms) -> None:
        """Take the control plane's word."""
        self._ahead = terms.now - self._clock.monotonic()
        self.grant_key = terms.grant_key
        before, self._refused = self._refused, dict.fromkeys(terms.refused) | self._expelled
        for agent in self._refused:
            if agent not in before:
                self.on_refused(agent, "it is no member any more")
        self._keep()

    def expel(self, agent: str, reason: str) -> None:
        """This agent is no member any more."""
        self._expelled[agent] = self._refused[agent] = None
        self.on_refused(agent, reason)
        self._keep()

    def _keep(self) -> None:
        try:
            self._home.keep_terms(self.grant_key, list(self._refused))
        except AtollError as error:
            _log.error("the terms hold, but could not be kept: %s", error.message)
