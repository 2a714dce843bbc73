"""The sweep: what exists at a cloud under our owner tag against what the store knows, so that nothing is orphaned."""

import asyncio
from dataclasses import dataclass, replace

import structlog

from atoll.errors import AtollError
from atoll.group import Orphans, Provider
from atoll.instance import Instance
from atoll.states import InstanceState, Reason
from federation.control.catalog import Catalog
from federation.control.changes import Changes
from federation.control.config import ControlConfig
from providers.errors import Absent, ProviderError
from providers.port import Driver, Machine, MachineState

log = structlog.get_logger("control")
_I = InstanceState
_OFF = (MachineState.STOPPING, MachineState.STOPPED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something on which cloud and store do not agree: what it is, and what was (or would be) done."""

    provider: str
    instance: str
    provider_id: str
    state: str
    finding: str
    action: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """One look at a provider's cloud: when, what was found, and the error if it could not be listed."""

    at: float
    findings: tuple[Finding, ...] = ()
    error: str = ""


class Sweeper:
    """Compares and repairs: no machine with our tag that no row may own stays unnoticed (I1).

    What is unknown to the store is ended, stopped or only reported, as its provider says; what the store knows
    as gone, and a second machine of one intent, is always ended.
    """

    def __init__(self, changes: Changes, catalog: Catalog, config: ControlConfig) -> None:
        self._changes = changes
        self._catalog = catalog
        self._config = config
        self._swept = 0
        self._told: set[tuple[str, str]] = set()
        self._last: dict[str, Sweep] = {}

    def last(self, provider: str) -> Sweep | None:
        """Return the last sweep that was no dry run; None before the first one of this process."""
        return self._last.get(provider)

    async def round(self) -> float | None:
        """Sweep all providers at once (L2); first rounds come soon after a start: a crash may have left something."""
        async with self._changes.look() as tx:
            providers = [row.name for row in await tx.find(Provider)]
        await asyncio.gather(*(self._sweep(name) for name in providers))
        self._swept += 1
        return min(self._config.sweep_first_s, self._config.sweep_s) if self._swept < 6 else None

    async def _sweep(self, provider: str) -> None:
        try:
            await self.sweep(provider, dry_run=False)
        except AtollError as error:
            self._last[provider] = Sweep(at=self._changes.clock.now(), error=error.message)
            log.warning("sweep failed", provider=provider, reason=error.reason, error=error.message)

    async def sweep(self, provider: str, dry_run: bool) -> list[Finding]:
        """Compare one provider's cloud with the store; with `dry_run` nothing is changed."""
        async with self._changes.look() as tx:
            account = await tx.get(Provider, provider)
            owner = await tx.setting("installation") or ""
        if account is None:
            return []
        driver = self._catalog.driver(account)
        machines = await self._changes.steps.run("sweep.list", lambda: driver.describe(owner))
        async with self._changes.look() as tx:
            account = await tx.get(Provider, provider) or account  # a person may have said otherwise meanwhile
            rows = {row.id: row for row in await tx.find(Instance, provider=provider)}
        judged = [(_judge(account, machine, rows.get(machine.intent)), machine) for machine in machines]
        found = [(finding, machine) for finding, machine in judged if finding]
        if not dry_run:
            found = [(await self._repair(finding, machine, driver), machine) for finding, machine in found]
            findings = tuple(finding for finding, _ in found)
            self._last[provider] = Sweep(at=self._changes.clock.now(), findings=findings)
        return [finding for finding, _ in found]

    async def _repair(self, finding: Finding, machine: Machine, driver: Driver) -> Finding:
        """Do what the finding says, or say that it failed: one machine does not keep the others waiting."""
        steps, done = self._changes.steps, ""
        try:
            if finding.action == Orphans.TERMINATE:
                await steps.run("sweep.terminate", lambda: driver.terminate(machine.provider_id))
                done = "terminated"
            elif finding.action == Orphans.QUARANTINE:
                await steps.run("sweep.stop", lambda: driver.stop(machine.provider_id))
                done = "stopped, its disk kept"
            elif (machine.provider_id, finding.action) not in self._told:
                done = "reported" if finding.action == Orphans.REPORT else ""
        except Absent:
            return finding
        except ProviderError as error:
            log.warning(
                "sweep could not act", provider_id=machine.provider_id, action=finding.action, why=error.message
            )
            return replace(finding, action=f"{finding.action} failed: {error.message}")
        if done:
            log.warning(
                "sweep", instance=machine.intent, provider_id=machine.provider_id, found=finding.finding, did=done
            )
            async with self._changes.commit("sweep.record") as change:
                text = f"{done}: {finding.provider_id} at {finding.provider}, {finding.finding}"
                await change.event("instance", machine.intent, "swept", reason=Reason.ORPHAN, message=text)
        self._told.add((machine.provider_id, finding.action))
        return finding


def _judge(account: Provider, machine: Machine, row: Instance | None) -> Finding | None:
    """Say what is wrong with a machine of ours, None when nothing is."""
    # One that fails to end holds quota (an OpenStack server in error): nobody but us would ask again.
    if machine.state is MachineState.ENDED or (machine.state is MachineState.ENDING and row):
        return None
    what, action = "", str(Orphans.TERMINATE)
    if row is None:
        what, action = "ours by its tag, unknown to the store", str(account.orphans)
        if account.orphans is Orphans.QUARANTINE and machine.state in _OFF:
            action = "keep"  # in quarantine already
    elif row.state is _I.GONE:
        what = "the store had it as gone, but it is there"
    elif row.provider_id and row.provider_id != machine.provider_id:
        what = f"a second machine of an intent that is {row.provider_id}"
    if not what:
        return None
    return Finding(
        provider=account.name,
        instance=machine.intent,
        provider_id=machine.provider_id,
        state=str(machine.state),
        finding=what,
        action=action,
    )
