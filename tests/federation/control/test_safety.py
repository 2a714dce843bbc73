"""What must hold whatever a cloud, a person or a lost message does: each defence with the others out of the way."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from atoll.agent import Agent
from atoll.errors import Unauthorized
from atoll.group import Orphans, Provider, Size
from atoll.instance import Instance
from atoll.plan import Action, Step
from atoll.slots import Request
from atoll.states import AgentState, InstanceState, Reason
from federation.control.spending import Accounts
from providers.errors import Absent, Throttled, Unknown
from providers.port import Intent, Machine, MachineState
from tests.fakes.cloud import SMALL, MemoryCloud
from tests.federation.control.ring import CONFIG, Ring, ring, until
from tunnel import wire

VIRTUAL_TIME = True


async def no_machine(r: Ring) -> bool:
    return not r.cloud.live()


async def running(r: Ring) -> tuple[str, str]:
    """Have a session run on a launched machine; return the ids of session and agent."""
    [row] = await r.submit(resources=Request(cpu=3000))
    placed = await r.until_state(row.id, "running")
    return row.id, placed.members[0].agent


async def silence(r: Ring, agent: str) -> None:
    """Cut an agent off for good."""
    r.network.refuse(agent, True)
    r.network.reset(agent)


# -- someone else ends or stops a machine -----------------------------------------------------------------


@pytest.mark.parametrize("how", ["ended", "unlisted", "stopped"])
async def test_a_machine_that_someone_else_removed_is_noticed_and_its_session_runs_again(how: str) -> None:
    async with ring() as r:
        await r.elastic()
        session, agent = await running(r)
        [machine] = r.cloud.live()
        if how == "ended":
            r.cloud.take(machine.provider_id)
        elif how == "unlisted":
            del r.cloud.machines[machine.provider_id]
        else:
            r.cloud.machines[machine.provider_id] = replace(machine, state=MachineState.STOPPED)
        await silence(r, agent)

        async def again() -> bool:
            row = await r.session(session)
            return row.attempt == 2 and row.state == "running"

        await until(again, "a second attempt")
        first = next(i for i in await r.control.instances.list() if i.provider_id == machine.provider_id)
        assert (first.state, first.reason) == (InstanceState.GONE, Reason.ENDED_BY_CLOUD)
        events = (await r.control.why.session("default", session)).events
        assert any("was taken away" in event.message for event in events)
        assert not [m for m in r.cloud.live() if m.provider_id == machine.provider_id], "nothing is left of it"
        await r.finish(session)


async def test_a_machine_that_is_listed_as_off_is_kept_while_its_agent_speaks() -> None:
    async with ring() as r:
        await r.elastic()
        session, _ = await running(r)
        [machine] = r.cloud.live()
        r.cloud.machines[machine.provider_id] = replace(machine, state=MachineState.STOPPED)
        listings = r.steps.seen["observe.list"]

        async def looked() -> bool:
            return r.steps.seen["observe.list"] > listings + 5

        await until(looked, "listed several times")
        assert (await r.session(session)).state == "running"
        assert [i.state for i in await r.control.instances.list()] == [InstanceState.JOINED]


# -- orphans ------------------------------------------------------------------------------------------------


async def orphan(r: Ring) -> str:
    machine = await r.cloud.create(Intent(id="i-lost", owner=r.control.installation, shape=SMALL, user_data=""))
    return machine.provider_id


async def swept(r: Ring) -> list[str]:
    events = await r.store.events(0, 1000, ("instance",))
    return [event.message for event in events if event.state == "swept"]


class Announced(MemoryCloud):
    """Runs `meanwhile` while it is listed."""

    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def describe(self, owner: str) -> list[Machine]:
        if self.meanwhile:
            await self.meanwhile()
        return await super().describe(owner)


async def test_what_a_person_says_of_orphans_during_a_listing_counts() -> None:
    r = Ring(config=replace(CONFIG, sweep_first_s=600.0, sweep_s=600.0))
    r.cloud = cloud = Announced()
    await r.start()
    try:
        await r.elastic(orphans=Orphans.TERMINATE)
        key = await orphan(r)
        row = Provider(name="cloud", kind="memory", orphans=Orphans.REPORT)
        cloud.meanwhile = lambda: r.control.providers.apply(row)
        [finding] = await r.control.sweeper.sweep("cloud", dry_run=False)
        assert (finding.provider_id, finding.action) == (key, Orphans.REPORT)
        assert [machine.provider_id for machine in r.cloud.live()] == [key]
    finally:
        await r.close()


@pytest.mark.parametrize(
    ("policy", "state", "done"),
    [
        (Orphans.REPORT, MachineState.RUNNING, "reported"),
        (Orphans.QUARANTINE, MachineState.STOPPED, "stopped, its disk kept"),
        (Orphans.TERMINATE, MachineState.ENDED, "terminated"),
    ],
)
async def test_an_orphan_gets_what_its_provider_says(policy: Orphans, state: MachineState, done: str) -> None:
    async with ring() as r:
        r.boots = False
        await r.elastic(orphans=policy)
        key = await orphan(r)
        dry = await r.control.sweeper.sweep("cloud", dry_run=True)
        assert [(f.provider_id, f.action) for f in dry] in ([(key, str(policy))], [])
        sweeps = r.steps.seen.get("sweep.list", 0)

        async def four_more() -> bool:
            return r.steps.seen.get("sweep.list", 0) > sweeps + 4

        await until(four_more, "swept again and again")
        assert r.cloud.machines[key].state is state
        assert [text.partition(":")[0] for text in await swept(r)] == [done], "told once"
        last = (await r.control.health.look("cloud")).swept
        assert last is not None
        found = {Orphans.REPORT: "report", Orphans.QUARANTINE: "keep"}.get(policy)
        assert [f.action for f in last.findings] == ([found] if found else [])


async def test_a_dry_sweep_does_nothing() -> None:
    r = Ring()
    r.boots = False
    await r.control.start()
    try:
        await r.elastic()
        key = await orphan(r)
        r.control.sweeper._swept = 99
        before = dict(r.cloud.machines)
        [found] = await r.control.sweeper.sweep("cloud", dry_run=True)
        assert (found.provider_id, found.action, found.instance) == (key, "terminate", "i-lost")
        assert r.cloud.machines == before
        assert await swept(r) == []
    finally:
        await r.close()


async def test_a_machine_that_we_ended_is_ended_again_whatever_the_policy() -> None:
    async with ring() as r:
        r.boots = False
        await r.elastic(orphans=Orphans.REPORT)
        async with r.store.transaction() as tx:
            await tx.insert(
                Instance(
                    id="i-back", provider="cloud", group="burst", site="far", shape=SMALL, state=InstanceState.GONE
                )
            )
        await r.cloud.create(Intent(id="i-back", owner=r.control.installation, shape=SMALL, user_data=""))
        await until(lambda: no_machine(r), "ended")


# -- planted bugs that no fault schedule alone would show -------------------------------------------------


async def test_a_session_that_came_meanwhile_saves_its_machine() -> None:
    """The plan saw an empty, acknowledged agent; a session was placed before it was adopted (I4)."""
    async with ring() as r:
        await r.elastic()
        _, key = await running(r)
        async with r.store.transaction() as tx:
            agent = await tx.get(Agent, key)
            assert agent
            agent = await tx.update(replace(agent, state=AgentState.DRAINING, cordon_epoch=1, acknowledged_epoch=9))
        for action in (Action.TERMINATE, Action.STOP):
            step = Step(
                action=action, group="burst", reason=Reason.EMPTY_DRAINED, message="", agent=key,
                instance=agent.instance, epoch=agent.epoch,
            )  # fmt: skip
            async with r.control.changes.commit("plan.adopt") as change:
                accounts = Accounts(now=change.now)
                assert not await r.control._scheduling._adoption._adopt_step(change, step, accounts)
                instance = await change.tx.get(Instance, agent.instance)
                assert instance
                assert instance.state is InstanceState.JOINED
        assert len(r.cloud.live()) == 1


async def test_runs_that_are_not_an_agents_own_are_to_be_killed_at_registration() -> None:
    async with ring() as r:
        agent = await r.agent()
        [row] = await r.submit()
        placed = await r.until_state(row.id, "running")
        own = f"{row.id}.{placed.attempt}.0"
        strangers = [f"s-never.{1}.0", f"{row.id}.{placed.attempt + 1}.0", f"{row.id}.{placed.attempt}.7"]
        for run in strangers:
            agent.runs[run] = wire.RunReport(run=run, state="running", limits="not enforced")
        r.network.reset(placed.members[0].agent)
        agent.got.clear()
        await agent.dial()

        async def welcomed() -> wire.Welcome | None:
            return next((message for message in agent.got if isinstance(message, wire.Welcome)), None)

        told = await until(welcomed, "registered again")
        assert sorted(told.kill) == sorted(strangers)
        assert own in agent.runs
        await r.finish(row.id)


async def test_a_machine_is_known_by_its_listing_when_no_create_is_ever_answered() -> None:
    async with ring() as r:
        r.boots = False
        await r.elastic(size=Size(max=1))
        r.cloud.fail = [(Unknown("no answer"), True), *[(Unknown("no answer"), False)] * 1000]
        await r.submit(resources=Request(cpu=3000))

        async def confirmed() -> Instance | None:
            rows = await r.control.instances.list(states=["booting"])
            return rows[0] if rows else None

        row = await until(confirmed, "confirmed by the listing alone")
        assert row.provider_id == f"m-{row.id}"
        assert r.cloud.creates == 1


# -- calls that fail ---------------------------------------------------------------------------------------


async def test_a_console_that_cannot_be_read_does_not_keep_a_useless_machine() -> None:
    async with ring() as r:
        group = await r.elastic(size=Size(max=1))
        r.boots = False
        await r.control.groups.apply(replace(group, boot_s=0.2))

        async def fails(provider_id: str) -> str:
            raise Unknown("no answer")

        r.cloud.console = fails  # type: ignore[method-assign]
        await r.submit(resources=Request(cpu=3000))

        async def ended() -> bool:
            return any(i.reason == "NOT_JOINED" and i.state == "gone" for i in await r.control.instances.list())

        await until(ended, "ended without its console")


async def test_a_launch_that_is_throttled_past_its_deadline_is_given_up() -> None:
    async with ring() as r:
        group = await r.elastic(size=Size(max=1))
        await r.control.groups.apply(replace(group, boot_s=0.3))
        r.cloud.fail = [(Throttled("slow down", retry_after=0.05), False)] * 1000
        await r.submit(resources=Request(cpu=3000))

        async def given_up() -> bool:
            return any(i.reason == "THROTTLED" and i.state == "gone" for i in await r.control.instances.list())

        await until(given_up, "given up")
        assert r.cloud.creates == 0


async def test_the_groups_labels_tag_the_machine_and_ours_win() -> None:
    async with ring() as r:
        await r.elastic(labels={"team": "vision", "atoll-group": "forged"})
        await running(r)
        [intent] = r.cloud.intents.values()
        assert intent.tags == {"team": "vision", "atoll-group": "burst", "atoll-instance": intent.id}


@pytest.mark.parametrize("absent", [1, 4])
async def test_a_machine_just_made_is_not_gone_because_its_cloud_does_not_know_it_yet(absent: int) -> None:
    """EC2 may answer `NotFound` for seconds after a create (kubernetes-sigs/cluster-api-provider-aws#2915)."""
    r = Ring(config=replace(CONFIG, appears_s=60.0, sweep_first_s=600.0, sweep_s=600.0))
    r.boots = False
    await r.control.start()
    states: list[str] = []
    ends = r.cloud.terminate

    async def terminate(provider_id: str) -> None:
        [row] = await r.control.instances.list()
        states.append(row.state)
        if len(states) <= absent:
            raise Absent(f"no machine {provider_id}")
        await ends(provider_id)

    r.cloud.terminate = terminate  # type: ignore[method-assign]
    try:
        group = await r.elastic(size=Size(max=1))
        await r.control.groups.apply(replace(group, boot_s=0.2))
        [session] = await r.submit(resources=Request(cpu=3000))

        async def made() -> bool:
            return bool(r.cloud.live())

        await until(made, "launched")
        await r.control.sessions.stop("default", session.id, by="me")

        async def gone() -> bool:
            return [row.state for row in await r.control.instances.list()] == ["gone"]

        await until(gone, "ended, by what the listing shows")
        assert r.cloud.live() == []
        assert states[: absent + 1] == ["ending"] * (absent + 1)
    finally:
        await r.close()


async def test_an_older_machine_that_its_cloud_does_not_know_is_gone() -> None:
    async with ring() as r:
        await r.elastic(idle_s=0.3)
        session, _ = await running(r)
        [machine] = r.cloud.live()
        r.cloud.hidden.add(machine.intent)
        await r.finish(session)

        async def gone() -> bool:
            return [row.state for row in await r.control.instances.list()] == ["gone"]

        await until(gone, "by the second call's answer alone")


async def test_a_machine_whose_join_was_not_answered_joins_again_with_its_key() -> None:
    async with ring() as r:
        token, secret = await r.control.tokens.create_join(site="far", group="far")
        first = await r.control.tokens.join(secret, "key one", "m", {})
        again = await r.control.tokens.join(secret, "key one", "m", {})
        assert again.agent.id == first.agent.id
        assert [agent.id for agent in await r.control.agents.list()] == [first.agent.id]
        with pytest.raises(Unauthorized):
            await r.control.tokens.join(secret, "key two", "m", {})
        await r.control.tokens.delete(token.id)
        with pytest.raises(Unauthorized):
            await r.control.tokens.join(secret, "key one", "m", {})
