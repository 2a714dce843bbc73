"""Users inside this relay, by the credential that let them in: where that one ends, so do they."""

from collections import Counter
from functools import partial

from atoll.clock import Clock
from atoll.errors import Forbidden, Unauthorized
from tunnel.door import Visit
from tunnel.grant import USER_LIFE_S
from tunnel.reports import Account, Reports


class Visits:
    """A door's guard: counts who is inside, tells of them, and sends home whose API token counts no more."""

    def __init__(self, clock: Clock, reports: Reports) -> None:
        self._clock = clock
        self._reports = reports
        self._inside: dict[Visit, Account] = {}
        self._evicted: dict[str, float] = {}
        self._told: frozenset[str] | None = None

    def __len__(self) -> int:
        """How many there are."""
        return len(self._inside)

    def news(self) -> list[str] | None:
        """Return the tokens of those inside (SHA-256, hex), None where that is what was returned last."""
        tokens = frozenset(Counter(visit.grant.token for visit in self._inside if visit.grant is not None))
        if tokens == self._told:
            return None
        self._told = tokens
        return sorted(tokens)

    def forget_told(self) -> None:
        """Somebody new asks: tell everything again."""
        self._told = None

    def evict(self, tokens: list[str]) -> None:
        """End the connections of these tokens' bearers; their grants open none until they have expired."""
        now = self._clock.monotonic()
        self._evicted = {token: until for token, until in self._evicted.items() if until > now}
        self._evicted |= dict.fromkeys(tokens, now + USER_LIFE_S)
        for visit in [visit for visit in self._inside if visit.grant is not None and visit.grant.token in tokens]:
            visit.end("the API token is not valid any more")

    # What the door calls.

    async def admit(self, visit: Visit, /) -> None:
        """Let in who has a good grant, unless its token was found bad; raise `Unauthorized` or `Forbidden`."""
        if visit.grant is None or not (visit.grant.user and visit.grant.token):
            raise Forbidden("the grant is no user's")
        if self._evicted.get(visit.grant.token, 0.0) > self._clock.monotonic():
            raise Unauthorized("the API token is not valid any more", hint="log in anew")
        look = partial(_look, visit)
        self._inside[visit] = self._reports.began(visit.sealed, look, source=visit.source)

    def left(self, visit: Visit, /) -> None:
        """A visit is over."""
        if account := self._inside.pop(visit, None):
            error = visit.error
            account.over(error.code if error else "", error.message if error else "")


def _look(visit: Visit, account: Account) -> None:
    if visit.opened is not None:
        account.lane = visit.opened.choice.lane
        account.received, account.sent = visit.opened.transport.carried
