"""The sweep: what exists at a cloud under our owner tag against what the store knows, so that nothing is orphaned."""

from dataclasses import dataclass

import structlog

from atoll.group import Provider
from atoll.instance import Instance
from atoll.states import InstanceState, Reason
from federation.control.catalog import Catalog
from federation.control.changes import Changes
from federation.control.config import ControlConfig
from providers.errors import Absent, ProviderError
from providers.port import Driver, Machine, MachineState

log = structlog.get_logger("control")
_I = InstanceState
_OVER = (MachineState.ENDING, MachineState.ENDED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something on which cloud and store do not agree: what it is, and what was (or would be) done."""

    provider: str
    instance: str
    provider_id: str
    state: str
    finding: str
    action: str


class Sweeper:
    """Compares and repairs; every machine with our tag that no row may own is ended (I1)."""

    def __init__(self, changes: Changes, catalog: Catalog, config: ControlConfig) -> None:
        self._changes = changes
        self._catalog = catalog
        self._config = config
        self._swept = 0

    async def round(self) -> float | None:
        """Sweep all providers; the first rounds come soon after a start, when a crash may have left something."""
        async with self._changes.look() as tx:
            providers = [row.name for row in await tx.find(Provider)]
        for name in providers:
            try:
                await self.sweep(name, dry_run=False)
            except ProviderError as error:
                log.warning("sweep failed", provider=name, reason=str(error.kind), error=error.message)
        self._swept += 1
        return self._config.sweep_first_s if self._swept < 6 else None

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
            rows = {row.id: row for row in await tx.find(Instance, provider=provider)}
        findings = [self._judge(provider, machine, rows.get(machine.intent)) for machine in machines]
        found = [(f, m) for f, m in zip(findings, machines, strict=True) if f]
        if not dry_run:
            for finding, machine in found:
                await self._repair(finding, machine, driver)
        return [finding for finding, _ in found if finding]

    def _judge(self, provider: str, machine: Machine, row: Instance | None) -> Finding | None:
        if machine.state in _OVER:
            return None
        what = action = ""
        if row is None:
            what, action = "ours by its tag, unknown to the store", "terminate"
        elif row.state is _I.GONE:
            what, action = "the store had it as gone, but it is there", "terminate"
        elif row.provider_id and row.provider_id != machine.provider_id:
            what, action = f"a second machine of an intent that is {row.provider_id}", "terminate"
        return Finding(
            provider=provider,
            instance=machine.intent,
            provider_id=machine.provider_id,
            state=str(machine.state),
            finding=what,
            action=action,
        ) if what else None  # fmt: skip

    async def _repair(self, finding: Finding | None, machine: Machine, driver: Driver) -> None:
        if finding is None:
            return
        log.warning(
            "sweep ends a machine", instance=machine.intent, provider_id=machine.provider_id, why=finding.finding
        )
        try:
            await self._changes.steps.run("sweep.terminate", lambda: driver.terminate(machine.provider_id))
        except Absent:
            return
        async with self._changes.commit("sweep.record") as change:
            await change.event(
                "instance", machine.intent, "swept", reason=Reason.ORPHAN, message=f"terminated: {finding.finding}"
            )
