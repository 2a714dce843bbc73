"""The life of launched machines as a saga: intent → token → create → confirm → join; end → call → observed.

Each state of an instance row has one next action, and each action may be repeated: a crash anywhere
leaves a row from which the next round goes on. Nothing is counted as gone before it was seen gone.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from atoll.agent import Agent
from atoll.clock import Clock
from atoll.group import Group, Provider
from atoll.instance import Instance
from atoll.states import KEPT, AgentState, InstanceState, Reason
from atoll.token import Token, TokenKind
from federation.control.bootscript import BootScript
from federation.control.catalog import Catalog, priced
from federation.control.changes import Change, Changes
from federation.control.config import ControlConfig
from federation.control.guard import Guard, Paused
from federation.control.links import Links
from federation.control.members import vanished
from federation.control.quotas import Quotas
from providers.errors import Absent, BadRequest, ProviderError, Quota, Throttled, Unknown
from providers.port import Driver, Intent, Machine, MachineState
from tunnel.jointoken import JoinToken, token_hash

log = structlog.get_logger("control")
_I = InstanceState
_TRANSIENT = (_I.INTENDED, _I.CREATING, _I.BOOTING, _I.STOPPING, _I.STARTING, _I.ENDING)


@dataclass(slots=True)
class _Missing:
    """How long a machine that should be listed was absent from listings: never proof by itself (I6)."""

    since: float
    listings: int = 1


class Launches:
    """Carries instance rows on to their next state. Calls to one provider never delay another's (L2)."""

    def __init__(
        self, changes: Changes, catalog: Catalog, quotas: Quotas, links: Links, config: ControlConfig, clock: Clock
    ) -> None:
        self._changes = changes
        self._catalog = catalog
        self._quotas = quotas
        self._links = links
        self._config = config
        self._clock = clock
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._missing: dict[str, _Missing] = {}
        self._observed_at: dict[str, float] = {}
        self._owner = ""
        self.on_change: Callable[[], None] = lambda: None
        self.on_progress: Callable[[], None] = lambda: None

    async def round(self) -> float | None:
        """Start the next action of every instance that has none in flight; observe clouds when it is time."""
        if not self._owner:
            async with self._changes.look() as tx:
                self._owner = await tx.setting("installation") or ""
        kept = await self._changes.rows()
        silent = {agent.instance for agent in kept.agents.values() if agent.instance and not agent.epoch}
        for row in kept.instances.values():
            provider = kept.providers.get(row.provider)
            never_heard = row.state is _I.JOINED and row.id in silent
            if provider and row.id not in self._busy and (row.state in _TRANSIENT or never_heard):
                self._begin(row.id, self._act(row, provider, kept.groups.get(row.group)))
        for name, provider in kept.providers.items():
            mine = [row for row in kept.instances.values() if row.provider == name]
            if mine and f"observe {name}" not in self._busy and self._due(name, mine):
                self._begin(f"observe {name}", self._observe(provider))
        return None

    async def stop(self) -> None:
        """Cancel what is in flight; rows say where to go on."""
        tasks = list(self._busy.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._busy.clear()

    def observe_now(self) -> None:
        """Look at the clouds in the next round, e.g. because a machine's link is down."""
        self._observed_at.clear()
        self.on_progress()

    def _due(self, provider: str, rows: list[Instance]) -> bool:
        last = self._observed_at.get(provider)
        transient = any(row.state in _TRANSIENT or self._links.live(row.agent) is None for row in rows)
        every = self._config.observe_s if transient else 5 * self._config.observe_s
        return last is None or self._clock.monotonic() - last >= every

    def _begin(self, key: str, work: Awaitable[None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except Paused as error:
                log.debug("provider call is paused", what=key, error=error.message)
            except ProviderError as error:
                log.warning("provider call failed", what=key, reason=str(error.kind), error=error.message)
            except Exception as error:
                log.error("launch step failed", what=key, error=repr(error), exc_info=True)
            finally:
                self._busy.pop(key, None)

        self._busy[key] = asyncio.get_running_loop().create_task(guarded(), name=f"launch {key}")

    async def _act(self, row: Instance, provider: Provider, group: Group | None) -> None:
        driver = self._catalog.driver(provider)
        match row.state:
            case _I.INTENDED:
                await self._prepare(row)
                self.on_progress()
            case _I.CREATING:
                await self._create(row, provider, driver, group)
            case _I.BOOTING | _I.STARTING | _I.JOINED:
                await self._wait_for_join(row, driver, group)
            case _I.ENDING:
                await self._end(row, driver)
            case _I.STOPPING:
                await self._stop(row, driver)
            case _:
                return

    # -- up -------------------------------------------------------------------------------------------

    async def _prepare(self, row: Instance) -> None:
        """Store the join token's hash and say that the create call may happen from now on."""
        async with self._changes.commit("launch.token") as change:
            now = await change.tx.get(Instance, row.id)
            if now is None or now.state is not _I.INTENDED:
                return
            group = await change.tx.get(Group, row.group)
            if group is None:
                await change.instance(now, _I.GONE, Reason.INVALID, "its group was deleted")
                return
            token = Token(
                id=token_hash(self._secret(row.id)),
                kind=TokenKind.JOIN,
                site=row.site,
                group=row.group,
                instance=row.id,
                expires_at=change.now + group.boot_s,
                created_at=change.now,
            )
            if await change.tx.get(Token, token.id) is None:
                await change.tx.insert(token)
            await change.instance(now, _I.CREATING, now.reason, f"asks {row.provider} for {priced(row.shape)}")

    async def _create(self, row: Instance, provider: Provider, driver: Driver, group: Group | None) -> None:
        intent = Intent(
            id=row.id,
            owner=self._owner,
            shape=row.shape,
            user_data=self.user_data(row, provider, group),
            tags={**row.tags, "atoll-group": row.group, "atoll-instance": row.id},
            max_life_s=group.max_life_s if group else 0.0,
        )
        try:
            machine = await self._changes.steps.run("launch.create", lambda: driver.create(intent))
        except (Throttled, Unknown) as error:
            await self._unsure(row, group, error)
            return
        except ProviderError as error:
            if isinstance(error, Quota):
                await self._learn(row, error)
            await self._refused(row, error)
            return
        await self._confirm(row.id, machine)

    async def _confirm(self, key: str, machine: Machine) -> None:
        async with self._changes.commit("launch.confirm") as change:
            row = await change.tx.get(Instance, key)
            if row is None or row.provider_id:
                return
            to = _I.BOOTING if row.state is _I.CREATING else row.state
            text = "the cloud made it; waits for its agent" if to is _I.BOOTING else row.message
            await change.instance(
                row, to, Reason.CREATED, text, provider_id=machine.provider_id, booted_at=row.booted_at or change.now
            )
        self.on_progress()

    async def _refused(self, row: Instance, error: ProviderError) -> None:
        """Surely nothing was made, or nothing is left of it: also when a listing showed it before it failed."""
        async with self._changes.commit("launch.refuse") as change:
            now = await change.tx.get(Instance, row.id)
            if now is None or now.state not in (_I.CREATING, _I.BOOTING):
                return
            await change.tx.delete(Token, token_hash(self._secret(row.id)))
            await change.instance(now, _I.GONE, error.kind, error.message)
        self.on_change()

    async def _learn(self, row: Instance, error: Quota) -> None:
        """The account may have no more of this: what is live now is taken for its limit."""
        kept = await self._changes.rows()
        live = [each for each in kept.instances.values() if each.provider == row.provider]
        self._quotas.learn(row.provider, row.shape, error, live)

    async def _unsure(self, row: Instance, group: Group | None, error: ProviderError) -> None:
        """This call or an earlier one may have happened: repeating it is safe; past the deadline it is ended."""
        if self._changes.clock.now() - row.created_at < (group.boot_s if group else 0.0):
            log.info("create has no answer yet", instance=row.id, error=error.message)
            return
        await self.end(row.id, error.kind, f"not made within the boot deadline: {error.message}")

    async def _wait_for_join(self, row: Instance, driver: Guard, group: Group | None) -> None:
        """Not joined by its deadline: keep the console's words, end it, and leave this offer alone for a while (I3)."""
        limit = group.boot_s if group else 0.0
        if self._changes.clock.now() - row.since < limit:
            return
        console = ""
        try:
            console = await self._changes.steps.run("launch.console", lambda: driver.console(row.provider_id))
        except ProviderError as error:  # its words would be good to have; its end is not to wait for them
            log.warning("console not to be had", instance=row.id, error=error.message)
        late = f"no agent joined within {limit:.0f} s"
        driver.shun(row.shape, f"{Reason.NOT_JOINED}: {late}")
        await self.end(row.id, Reason.NOT_JOINED, late, console=console[-65536:])

    def user_data(self, row: Instance, provider: Provider, group: Group | None) -> str:
        """Return the boot script of one machine; its token's secret is derived from the installation's key.

        So a repeated create sends equal bytes, as long as its group keeps its terms.
        """
        terms = group or Group(name=row.group, site=row.site)
        token = JoinToken(url=self._config.agent_url, pin=self._config.authority.pin, secret=self._secret(row.id))
        return BootScript(
            name=row.id, token=token, cloud=provider.kind, boot_s=terms.boot_s, max_life_s=terms.max_life_s
        ).render()

    def _secret(self, instance: str) -> str:
        return hmac.new(self._config.secret_key, f"join {instance}".encode(), hashlib.sha256).hexdigest()

    # -- down -----------------------------------------------------------------------------------------

    async def end(self, key: str, reason: Reason, message: str, *, console: str = "") -> None:
        """Decide that an instance ends; the next rounds see to it that it does."""
        async with self._changes.commit("end.mark") as change:
            row = await change.tx.get(Instance, key)
            if row is None or row.state in (_I.ENDING, _I.GONE):
                return
            await change.end(row, reason, message, console=console)
        self.on_progress()

    async def _stop(self, row: Instance, driver: Driver) -> None:
        """Ask the cloud to stop it for the cold pool; what cannot be stopped is ended: it would cost for ever."""
        try:
            await self._changes.steps.run("cold.stop", lambda: driver.stop(row.provider_id))
        except BadRequest as error:
            await self.end(row.id, error.kind, f"the cloud does not stop it: {error.message}")

    async def _end(self, row: Instance, driver: Driver) -> None:
        """Ask the cloud to end it; `Absent` from the call itself is the cloud's word that it is gone.

        But not of a machine just made: what a cloud has accepted may be unknown to its next answer.
        """
        if not row.provider_id:
            await self._end_unconfirmed(row, driver)
            return
        try:
            await self._changes.steps.run("end.call", lambda: driver.terminate(row.provider_id))
        except Absent:
            if self._changes.clock.now() - (row.booted_at or row.created_at) < self._config.appears_s:
                log.info("not yet believed to be gone: just made", instance=row.id)
                return
            await self.gone(row.id, "the cloud says it is gone")

    async def _end_unconfirmed(self, row: Instance, driver: Driver) -> None:
        """It may exist although its creation was never confirmed: find it, or wait until it surely does not."""
        machines = await self._changes.steps.run("end.list", lambda: driver.describe(self._owner))
        found = next((m for m in machines if m.intent == row.id), None)
        if found:
            self._missing.pop(row.id, None)
            await self._confirm(row.id, found)
        elif self._absent(row.id):
            await self.gone(row.id, "the cloud never made it")

    def _absent(self, key: str) -> bool:
        """Note one listing without this machine; True after at least three over `absent_after_s`."""
        now = self._clock.monotonic()
        missing = self._missing.get(key)
        if missing is None:
            self._missing[key] = _Missing(now)
            return False
        missing.listings += 1
        return missing.listings >= 3 and now - missing.since >= self._config.absent_after_s

    async def gone(self, key: str, message: str, reason: Reason = Reason.NONE) -> None:
        """The machine was seen to have ended: settle it, its agent, and the sessions that ran there."""
        async with self._changes.commit("end.observe") as change:
            row = await change.tx.get(Instance, key)
            if row is None or row.state is _I.GONE:
                return
            why = reason or (row.reason if row.state is _I.ENDING else Reason.ENDED_BY_CLOUD)
            await change.tx.delete(Token, token_hash(self._secret(key)))
            await change.instance(row, _I.GONE, why, row.message if row.state is _I.ENDING else message)
            await self._gone_agent(change, row, message)
        self._missing.pop(key, None)
        self.on_change()

    async def _gone_agent(self, change: Change, row: Instance, message: str) -> None:
        agent = await change.tx.get(Agent, row.agent) if row.agent else None
        if agent is None or agent.state not in (*KEPT, AgentState.REVOKED):
            return
        if row.state is _I.ENDING and row.reason is Reason.USER:
            why, text = Reason.USER, f"its machine {row.id} was ended: {row.message}"
        else:
            why = Reason.RECLAIMED if row.shape.spot and row.state is not _I.ENDING else Reason.AGENT_GONE
            text = f"its machine {row.id} was taken away: {row.message if row.state is _I.ENDING else message}"
        await vanished(change, agent.id, why, text)
        await change.agent(agent, AgentState.GONE, Reason.TERMINATED, message)
        self._links.end(agent.id, "the machine has ended")

    # -- observation ----------------------------------------------------------------------------------

    async def _observe(self, provider: Provider) -> None:
        """List the cloud first, then read the rows: what changed in between is judged next time."""
        driver = self._catalog.driver(provider)
        machines = await self._changes.steps.run("observe.list", lambda: driver.describe(self._owner))
        self._observed_at[provider.name] = self._clock.monotonic()
        listed = {machine.intent: machine for machine in machines}
        kept = await self._changes.rows()
        for row in [row for row in kept.instances.values() if row.provider == provider.name]:
            machine = listed.get(row.id)
            if machine is None:
                await self._unlisted(row, "the cloud has not listed it for a while: someone else ended it")
                continue
            if machine.state is MachineState.STOPPED and row.state in (_I.BOOTING, _I.JOINED, _I.DRAINING):
                await self._unlisted(row, "found switched off: by itself, or by someone else")
                continue
            self._missing.pop(row.id, None)
            await self._judge(row, machine, driver)

    async def _judge(self, row: Instance, machine: Machine, driver: Driver) -> None:
        if machine.state is MachineState.ENDED:
            await self.gone(row.id, machine.message or "ended by the cloud")
        elif not row.provider_id and row.state is not _I.INTENDED:
            await self._confirm(row.id, machine)
        elif row.state is _I.STOPPING and machine.state is MachineState.STOPPED:
            async with self._changes.commit("cold.observe") as change:
                now = await change.tx.get(Instance, row.id)
                if now and now.state is _I.STOPPING:
                    await change.instance(now, _I.STOPPED, now.reason, "stopped; starts again when needed")
            self.on_change()
        elif row.state is _I.STARTING and machine.state is MachineState.STOPPED:
            await self._changes.steps.run("cold.start", lambda: driver.start(row.provider_id))

    async def _unlisted(self, row: Instance, why: str) -> None:
        """A confirmed machine that is long unlisted, or off, and whose agent is silent is ended: to learn the truth."""
        settled = row.state in (_I.BOOTING, _I.JOINED, _I.DRAINING, _I.STOPPED, _I.STARTING, _I.STOPPING)
        if settled and self._links.live(row.agent) is None and self._absent(row.id):
            await self.end(row.id, Reason.ENDED_BY_CLOUD, why)
