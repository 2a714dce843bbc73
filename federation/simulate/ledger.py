"""The ledger of a simulation: money, capacity and use by site, kept as they change."""

from atoll import money
from atoll.slots import Slots
from federation.simulate.model import Series, Setup, SiteUse


class _Account:
    """One site's sums. Amounts are thousandths of a GPU or of a core."""

    def __init__(self, began: float) -> None:
        self.cloud = 0
        self.capacity = 0
        self.used = 0
        self.capacity_s = 0.0
        self.used_s = 0.0
        self.machines = 0
        self.starts = 0
        self.at = began
        self.points: list[tuple[float, int, int]] = []

    def advance(self, now: float) -> None:
        """Count what there was since the last change."""
        if now > self.at:
            self.capacity_s += self.capacity * (now - self.at)
            self.used_s += self.used * (now - self.at)
            self.at = now

    def note(self, now: float) -> None:
        """Keep a point of the series; of several at one moment the last one holds."""
        point = (now, self.capacity, self.used)
        if self.points and self.points[-1][0] == now:
            self.points[-1] = point
        else:
            self.points.append(point)


class Ledger:
    """Accounts by site, in GPUs where there are any, else in cores."""

    def __init__(self, setup: Setup, began: float) -> None:
        self.unit = "GPU" if setup.gpus() else "core"
        self._setup = setup
        self._began = began
        self._accounts = {site.name: _Account(began) for site in setup.sites}

    def capacity(self, site: str, slots: Slots, sign: int, now: float) -> None:
        """A machine with these slots has come (1) or gone (-1)."""
        account = self._accounts[site]
        account.advance(now)
        account.capacity += sign * self._amount(slots)
        account.machines += sign > 0
        account.note(now)

    def use(self, site: str, slots: Slots, sign: int, now: float) -> None:
        """A session has taken (1) these slots or given them back (-1)."""
        account = self._accounts[site]
        account.advance(now)
        account.used += sign * self._amount(slots)
        account.starts += sign > 0
        account.note(now)

    def pay(self, site: str, amount: int) -> None:
        """A launched machine has cost this much."""
        self._accounts[site].cloud += amount

    def sites(self, ended: float) -> tuple[SiteUse, ...]:
        """Return the sums; own machines are paid for from beginning to end."""
        owned = dict.fromkeys(self._accounts, 0)
        prices = {site.name: site.price for site in self._setup.sites}
        for machine in self._setup.machines:
            owned[machine.site] += money.cost(prices[machine.site], ended - self._began)
        uses = []
        for name, account in self._accounts.items():
            account.advance(ended)
            uses.append(
                SiteUse(
                    site=name,
                    owned=owned[name],
                    cloud=account.cloud,
                    capacity_s=account.capacity_s / 1000,
                    used_s=account.used_s / 1000,
                    machines=account.machines,
                    starts=account.starts,
                )
            )
        return tuple(uses)

    def series(self) -> tuple[Series, ...]:
        """Return each site's capacity and use over time."""
        return tuple(
            Series(
                site=name,
                times=tuple(at for at, _, _ in account.points),
                capacity=tuple(capacity / 1000 for _, capacity, _ in account.points),
                used=tuple(used / 1000 for _, _, used in account.points),
            )
            for name, account in self._accounts.items()
        )

    def _amount(self, slots: Slots) -> int:
        return slots.gpu_milli if self.unit == "GPU" else slots.cpu
