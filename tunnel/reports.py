"""What a relay or an agent tells its control plane of users' streams: kept until it is stored there, bounded.

Nothing waits for it. What ends while the control plane is away is told when it is back; of more than so many ends the
oldest are dropped, and counted.
"""

import asyncio
from collections.abc import Callable
from itertools import chain, islice, takewhile

from tunnel import wire
from tunnel.figures import StreamReport

ENDED_LIMIT = 4096
"""Most ends that are kept until they can be told."""
BATCH = 256
TELL_S = 2.0
"""News wait this long for more of them: a short stream is told of once."""
REPEAT_S = 60.0
"""What goes on is told of again this often."""
NOTED_S = 30.0
"""What is not noted within this is told again."""


class Account:
    """What is told of one stream, or of one connection of it; `look` brings it up to date."""

    def __init__(
        self, reports: "Reports", number: int, grant: bytes, look: "Callable[[Account], None]", *, whole: bool
    ) -> None:
        self.number = number
        self.grant = grant
        self.whole = whole
        self.lane = self.source = self.reason = self.message = ""
        self.resumed = self.received = self.sent = 0
        self.began = asyncio.get_running_loop().time()
        self.ended: float | None = None
        self.told = 0.0
        self._reports = reports
        self._look: Callable[[Account], None] = look

    def over(self, reason: str = "", message: str = "") -> None:
        """It has ended; well to say twice."""
        if self.ended is None:
            self._look(self)
            self._look = _seen
            self.reason, self.message = reason, message
            self.ended = asyncio.get_running_loop().time()
            self._reports.over(self)

    def report(self, now: float) -> StreamReport:
        """Return how it is now."""
        self._look(self)
        return StreamReport(
            number=self.number,
            grant=self.grant,
            ago_s=now - self.began,
            lasted_s=None if self.ended is None else self.ended - self.began,
            whole=self.whole,
            lane=self.lane,
            source=self.source,
            resumed=self.resumed,
            received=self.received,
            sent=self.sent,
            reason=self.reason,
            message=self.message,
        )


class Reports:
    """All accounts of one process, `boot`. `linked` and `unlinked` say whether somebody listens."""

    def __init__(self, boot: str) -> None:
        self.lost = 0
        """Ends that were dropped untold."""
        self._boot = boot
        self._number = self._serial = 0
        self._send: Callable[[wire.Message], None] | None = None
        self._begun: dict[int, Account] = {}
        self._open: dict[int, Account] = {}
        self._ended: dict[int, Account] = {}
        self._awaited: list[tuple[Account, bool]] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """How many there are to tell of."""
        return len(self._begun) + len(self._open) + len(self._ended)

    def began(self, grant: bytes, look: Callable[[Account], None], *, source: str = "", whole: bool = False) -> Account:
        """A user's stream begins, or a connection of it, by this sealed grant."""
        self._number += 1
        account = Account(self, self._number, grant, look, whole=whole)
        account.source = source
        self._begun[account.number] = account
        self._arm()
        return account

    def over(self, account: Account) -> None:
        """An account has ended."""
        self._begun.pop(account.number, None)
        self._open.pop(account.number, None)
        self._ended[account.number] = account
        if len(self._ended) > ENDED_LIMIT:
            del self._ended[next(iter(self._ended))]
            self.lost += 1
        self._arm()

    def linked(self, send: Callable[[wire.Message], None]) -> None:
        """Somebody listens: tell at once, also that there is nothing."""
        self._send = send
        self._tell()

    def unlinked(self) -> None:
        """Nobody listens; what was not noted is told again."""
        self._send = self._awaited = None
        self._arm()

    def last(self) -> None:
        """Tell of every end at once, without waiting for an answer: this process ends."""
        while self._send is not None and self._ended:
            self._tell()
            for account, _ in self._awaited or []:
                self._ended.pop(account.number, None)

    def noted(self, serial: int) -> None:
        """What was told under this number is stored."""
        if serial != self._serial or self._awaited is None:
            return
        awaited, self._awaited = self._awaited, None
        self._disarm()
        now = asyncio.get_running_loop().time()
        for account, ended in awaited:
            if ended:
                self._ended.pop(account.number, None)
            elif account.ended is None:
                self._begun.pop(account.number, None)
                self._open.pop(account.number, None)
                self._open[account.number] = account
                account.told = now
        self._arm(again=len(awaited) == BATCH)

    def _arm(self, *, again: bool = False) -> None:
        """Wake up when there is something to tell; where nothing is going on there is no timer."""
        loop = asyncio.get_running_loop()
        wait: float | None = None
        if self._awaited is not None:
            wait = NOTED_S
        elif self._ended or self._begun:
            wait = 0.0 if again else TELL_S
        elif self._open:
            wait = max(TELL_S, next(iter(self._open.values())).told + REPEAT_S - loop.time())
        if self._timer is not None:
            if self._send is not None and wait is not None and self._timer.when() <= loop.time() + wait:
                return
            self._disarm()
        if self._send is not None and wait is not None:
            self._timer = loop.call_later(wait, self._tell)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell(self) -> None:
        self._disarm()
        if self._send is None:
            return
        now = asyncio.get_running_loop().time()
        due = takewhile(lambda each: each.told + REPEAT_S <= now + TELL_S, self._open.values())
        chosen = list(islice(chain(self._ended.values(), self._begun.values(), due), BATCH))
        self._serial += 1
        self._awaited = [(each, each.ended is not None) for each in chosen] or None
        reports = [each.report(now) for each in chosen]
        self._send(wire.StreamReports(boot=self._boot, serial=self._serial, reports=reports, lost=self.lost))
        self._arm()


def _seen(_account: Account) -> None:
    """Nothing changes any more."""
