"""Death before and after each commit of what administrators, relays and agents do, over real SQLite.

What a cloud or a session hangs on is swept by real SIGKILL in `tests/e2e/test_crash_points.py`.
"""

import asyncio
import time
from pathlib import Path

import pytest

from atoll.agent import Agent
from atoll.errors import Conflict, NotFound, Unauthorized
from atoll.group import Group
from atoll.mesh import Mesh, MeshState
from atoll.price import Price, PriceList
from atoll.relay import Relay, RelayState
from atoll.session import AppAccess, SessionSpec
from atoll.site import Site
from atoll.states import AgentState
from atoll.streamrecord import StreamRecord, StreamState
from atoll.token import Token, TokenKind
from federation.control.prices import PriceFile
from federation.control.steps import Steps
from federation.control.streamlog import Visit
from federation.control.streamrecords import StreamRecords
from providers.prices import file
from tests.federation.control.mortal import Killed, Lives, lives
from tests.federation.control.ring import until
from tests.federation.control.test_credentials import account
from tests.federation.control.test_mesh import World, played
from tests.federation.control.test_relays import URL, RelayEnd
from tests.federation.control.test_rotation import KeepingAgent
from tests.tunnel.ends import until as eventually
from tunnel import wire
from tunnel.identity import make_key_and_csr


async def the_relays(r: Lives) -> object:
    """Return relays, and their tokens with the uses they have left."""
    async with r.store.transaction() as tx:
        rows = [(row.name, row.state, row.key, row.issued_by) for row in await tx.find(Relay)]
        tokens = [(row.relay, row.uses_left) for row in await tx.find(Token, kind=TokenKind.RELAY)]
    return rows, tokens


async def test_a_relay_is_invited_and_enrolled_once(tmp_path: Path) -> None:
    async with lives(tmp_path) as r:
        made: list[tuple[Relay, str]] = []

        async def create() -> None:
            made.append(await r.control.relays.create("east", URL, ttl_s=60.0, owner="ada"))

        async def enrol() -> None:
            await r.control.relays.enrol(made[-1][1], csr)

        async def see() -> object:
            return await the_relays(r)

        await r.sweep("relay.create", create, see, again=Conflict)
        await r.control.relays.remove("east", by="ada")  # its token is lost with the answer, and the hint says so
        assert await see() == ([], []), "not even its token"
        await create()
        csr, other = (make_key_and_csr(tmp_path / name) for name in ("east", "thief"))
        await r.sweep("relay.enrol", enrol, see)
        with pytest.raises(Unauthorized):
            await r.control.relays.enrol(made[-1][1], other)


async def enrolled(r: Lives) -> tuple[Relay, str]:
    """Return a relay and its certificate request."""
    _, secret = await r.control.relays.create("east", URL, ttl_s=60.0, owner="ada")
    csr = make_key_and_csr(r.folder / "east")
    return (await r.control.relays.enrol(secret, csr)).relay, csr


async def test_a_relay_serves_renews_and_is_removed(tmp_path: Path) -> None:
    async with lives(tmp_path) as r:
        row, csr = await enrolled(r)

        async def connect() -> RelayEnd:
            end = RelayEnd(r, row)
            await end.welcome()
            return end

        async def renew() -> None:
            end = await connect()
            end.link.send(wire.Renew(csr=csr))
            await eventually(lambda: end.told(wire.Certificate))

        async def remove() -> None:
            await r.control.relays.remove("east", by="ada")

        async def see() -> object:
            return await the_relays(r)

        await r.sweep("relay.serving", connect, see)
        await r.control.rotation.rotate(by="ada")
        await r.sweep("relay.renew", renew, see)
        await r.sweep("relay.remove", remove, see, again=NotFound)
        assert await see() == ([], [])
        end = RelayEnd(r, row)
        end.connect()
        await eventually(lambda: end.told(wire.Refuse))
        [refusal] = end.told(wire.Refuse)
        assert isinstance(refusal, wire.Refuse)
        assert refusal.final


async def test_a_drain_is_told_and_ends_in_whichever_life(tmp_path: Path) -> None:
    async with lives(tmp_path) as r:
        row, _ = await enrolled(r)
        await RelayEnd(r, row).welcome()

        async def state() -> RelayState:
            return (await r.control.relays.get("east")).state

        async def drain() -> None:
            await r.control.relays.drain("east", deadline_s=5.0, by="ada")

        await r.killed("before:relay.drain", drain)
        assert await state() is RelayState.SERVING
        await r.killed("after:relay.drain", drain)
        assert await state() is not RelayState.SERVING

        async def leave() -> None:
            end = RelayEnd(r, row)
            await end.welcome()
            await eventually(lambda: end.told(wire.Drain))  # in whichever life it was ordered
            assert await state() is RelayState.DRAINING
            end.say(draining=True)
            end.link.close("the relay ends")
            await asyncio.sleep(60)

        for when in ("before", "after"):
            await r.killed(f"{when}:relay.lost", leave)
            assert await state() is RelayState.DRAINED, "nobody is left who could say so"
        await RelayEnd(r, row, boot="b2").welcome()
        assert await state() is RelayState.SERVING


async def test_tokens_are_made_used_and_deleted_once(tmp_path: Path) -> None:
    async with lives(tmp_path) as r:
        secrets: list[str] = []
        csr, other = (make_key_and_csr(tmp_path / name) for name in ("box", "thief"))

        async def create() -> None:
            secrets.append((await r.control.tokens.create_join(site="here", group="hall"))[1])

        async def join() -> None:
            await r.control.tokens.join(secrets[-1], csr, "box", {})

        async def places() -> object:
            async with r.store.transaction() as tx:
                return [row.name for row in await tx.find(Site)], [row.name for row in await tx.find(Group)]

        async def members() -> object:
            async with r.store.transaction() as tx:
                uses = {row.id: row.uses_left for row in await tx.find(Token, kind=TokenKind.JOIN)}
                return [row.name for row in await tx.find(Agent)], uses

        await r.sweep("token.create", create, places)
        await r.sweep("join.consume", join, members)
        with pytest.raises(Unauthorized):
            await r.control.tokens.join(secrets[-1], other, "box", {})

        token, secret = await r.control.tokens.create_api("bo")
        row, _ = await enrolled(r)

        async def delete() -> None:
            await r.control.tokens.delete(token.id)

        async def owners() -> object:
            return [each.owner for each in await r.control.tokens.list() if each.kind is TokenKind.API]

        await r.sweep("token.delete", delete, owners, again=NotFound)
        with pytest.raises(Unauthorized):
            await r.control.tokens.authenticate(secret)
        end = RelayEnd(r, row)
        await end.welcome(tokens=[token.id])
        await eventually(lambda: end.told(wire.Evict) == [wire.Evict(tokens=[token.id])])


async def test_no_agent_is_locked_out_by_a_certificate_that_never_reached_it(tmp_path: Path) -> None:
    async with lives(tmp_path) as r:
        agent = await r.join("box")
        [key] = r.agents

        async def member() -> Agent:
            async with r.store.transaction() as tx:
                row = await tx.get(Agent, key)
            assert row
            return row

        async def back() -> None:
            await dial(r, key, agent)
            await r.until_moved()

        old = r.authority.pin
        for when in ("before", "after"):
            await r.killed(f"{when}:ca.rotate", lambda: r.control.rotation.rotate(by="ada"))
            assert (r.authority.pin, r.authority.rotating) == (old, False)
        await r.control.rotation.rotate(by="ada")
        events = [event.state for event in await r.store.events(0, 1000, ("ca",))]
        assert events == ["rotate", "rotate"], "written down before it is done"
        for point in ("before:agent.kept", "after:agent.kept", "before:agent.renew", "after:agent.renew"):
            await r.killed(point, back)
        await back()
        for when in ("before", "after"):
            await r.killed(f"{when}:ca.retire", lambda: r.control.rotation.retire(by="ada"))
            assert r.authority.rotating
        await r.control.rotation.retire(by="ada")
        row = await member()
        assert row.state is AgentState.READY
        assert r.authority.agent_of(agent.certificate, agent.csr).generation == row.generation

        async def renew() -> None:
            await r.control.tokens.renew(agent.certificate, agent.csr)

        async def generation() -> object:
            return (await member()).generation

        await r.killed("before:agent.renew", renew)
        assert await generation() == row.generation
        await r.killed("after:agent.renew", renew)
        await renew()
        row = await member()
        assert row.state is AgentState.READY, "its answer was lost: that makes no clone"


async def dial(r: Lives, key: str, agent: KeepingAgent) -> None:
    """Come back with the newest certificate that an agent has on its disk."""
    shown = r.authority.agent_of(agent.certificate, agent.csr).generation if agent.certificate else 1
    agent._dialer = r.network.dialer(key, generation=shown)
    await agent.dial()


async def test_agents_that_leave_or_are_removed_are_gone_for_good(tmp_path: Path) -> None:
    async with lives(tmp_path) as r:
        leaver = await r.join("leaver")
        [key] = r.agents
        await r.join("idle")

        async def states() -> object:
            async with r.store.transaction() as tx:
                return {row.name: str(row.state) for row in await tx.find(Agent)}

        async def leave() -> None:
            leaver.got.clear()
            await dial(r, key, leaver)
            await eventually(lambda: leaver.got)
            leaver._send(wire.Leave(reason="its owner"))
            await asyncio.sleep(60)

        await r.killed("before:agent.left", leave)
        assert await states() == {"leaver": "ready", "idle": "ready"}
        await r.killed("after:agent.left", leave)
        assert await states() == {"leaver": "left", "idle": "ready"}
        await dial(r, key, leaver)
        await eventually(lambda: leaver.refused)
        assert leaver.refused
        assert leaver.refused.final
        await r.sweep("agent.remove", lambda: r.control.agents.remove("idle", by="ada"), states)


async def test_what_is_configured_is_so_once(tmp_path: Path) -> None:
    async with lives(tmp_path) as r:
        spec = SessionSpec(command=("true",), name="nb", apps={"web": 8080})
        await r.control.sessions.submit(spec, project="default", owner="ada")

        async def share() -> None:
            await r.control.sharing.share("default", "nb", "web", AppAccess.PROJECT, by="ada")

        async def shared() -> object:
            row = await r.session("nb")
            told = [
                event.message for event in await r.store.events(0, 1000, ("session",)) if "app web" in event.message
            ]
            return row.spec.app_rules, told

        await r.sweep("session.share", share, shared)
        await r.control.providers.apply(account())

        async def rotate() -> None:
            await r.control.providers.rotate("cloud", {"id": "NEW", "secret": "new"}, by="ada")

        async def credentials() -> object:
            await r.control.providers.shapes("cloud")
            return r.accounts[-1].settings["credentials"]

        await r.sweep("provider.rotate", rotate, credentials)
        now = time.time()
        listed = PriceList(provider="", source="a list", at=now, prices=(Price(shape="c1", amount=1000),))
        prices = PriceFile(
            name="prices.yaml",
            content=file.write([file.Regional(kind="memory", region="r1", listed=listed)], now, "a bazaar"),
            unsigned=True,
        )

        async def keep() -> None:
            await r.control.prices.import_file(prices, by="ada")

        async def kept() -> object:
            return [each.listed and each.listed.prices for each in await r.control.prices.standings()]

        await r.sweep("prices.keep", keep, kept)


async def test_two_sites_are_joined_and_parted_once(tmp_path: Path) -> None:
    async with lives(tmp_path) as r:
        for name in ("a", "b"):
            await r.control.sites.apply(Site(name=name))

        async def meshes() -> list[Mesh]:
            async with r.store.transaction() as tx:
                return await tx.find(Mesh)

        async def see() -> object:
            return [[(end.site, end.networks, end.subnets) for end in row.ends] for row in await meshes()]

        async def up() -> None:
            await r.control.meshes.up("a", "b", {}, by="ada")

        async def change() -> None:
            await r.control.meshes.up("a", "b", {"a": ["10.1.0.0/16"]}, by="ada")

        async def down() -> None:
            await r.control.meshes.down("a", "b", by="ada")

        await r.sweep("mesh.up", up, see)
        await r.sweep("mesh.up", change, see)
        await r.sweep("mesh.down", down, see, again=NotFound)
        assert await meshes() == []


def test_gateways_know_each_others_keys_in_whichever_life() -> None:
    """Each life dies at its first round that stores something, or at asking for new keys."""

    async def story(w: World) -> None:
        dead = asyncio.Event()
        point: list[str] = []

        def hook(when: str, step: str) -> None:
            if dead.is_set() or point == [f"{when}:{step}"]:
                dead.set()
                raise Killed

        async def die(wanted: str) -> bool:
            """Live until `wanted`, or until all is well; say whether it was reached."""
            point[:] = [wanted]
            for _ in range(600):
                if dead.is_set():
                    break
                await asyncio.sleep(0.1)
            reached = dead.is_set()
            dead.set()
            await w.ring.control.stop()
            dead.clear()
            point.clear()
            await w.ring.restart()
            return reached

        async def back() -> None:
            for peer in w.peers.values():
                await peer.agent.dial()

        w.ring.steps = Steps(hook)
        await w.ring.restart()
        one, other = await w.site("a"), await w.site("b")
        await w.ring.control.meshes.up("a", "b", {}, by="ada")
        reached = 0
        for number in range(6):
            reached += await die(("before:mesh.round", "after:mesh.round")[number % 2])
            await back()
        assert reached >= 3
        await w.until(MeshState.UP)
        keys = one.key, other.key
        for when in ("before", "after"):
            point[:] = [f"{when}:mesh.rotate"]
            with pytest.raises(Killed):
                await w.ring.control.meshes.rotate("a", "b", by="ada")
            await die("")
            await back()
        for number in range(6):
            await die(("before:mesh.round", "after:mesh.round")[number % 2])
            await back()
        await w.when(lambda: one.key != keys[0] and other.key != keys[1], "new keys")
        await w.when(lambda: one.peers == {other.key} and other.peers == {one.key}, "the new keys alone")
        await w.until(MeshState.UP)
        assert len(w.ring.store.rows(Mesh)) == 1

    played(story)


async def test_records_of_streams_are_kept_once_and_closed_by_the_next_life(tmp_path: Path) -> None:
    async with lives(tmp_path) as r:

        async def records() -> list[tuple[str, str]]:
            async with r.store.transaction() as tx:
                return [(row.user, str(row.state)) for row in await tx.find(StreamRecord)]

        async def record() -> None:
            r.control.streams.log.began(Visit(door="stream", user="ada", session="s-1"))
            await r.control.records.flush()
            await asyncio.sleep(60)

        await r.killed("before:streams.record", record)
        assert await records() == []
        await r.killed("after:streams.record", record)
        await closed(r)
        assert await records() == [("ada", "ended")]

        async def recover() -> None:
            async with r.control.changes.commit("test") as change:
                await change.tx.insert(StreamRecord(id="st-1", state=StreamState.OPEN, user="eve", began_at=1.0))
            await StreamRecords(r.control.changes, r.control.streams.log).flush()

        for when in ("before", "after"):
            await r.killed(f"{when}:streams.recover", recover)
            await closed(r)
            assert sorted(await records()) == [("ada", "ended"), ("eve", "ended")]
            async with r.control.changes.commit("test") as change:
                await change.tx.delete(StreamRecord, "st-1")

        async def trim() -> None:
            for user in ("bo", "cy"):
                r.control.streams.log.began(Visit(door="stream", user=user, session="s-1")).ended()
            await r.control.records.flush()
            await StreamRecords(r.control.changes, r.control.streams.log, kept=1)._trim()

        await r.killed("before:streams.trim", trim)
        assert sorted(await records()) == [("ada", "ended"), ("bo", "ended"), ("cy", "ended")]
        await r.killed("after:streams.trim", trim)
        assert len(await records()) == 1


async def closed(r: Lives) -> None:
    """Wait until the records of the last life are closed."""

    async def none_open() -> bool:
        return not [row for row in await r.control.records.list() if row.state is StreamState.OPEN]

    await until(none_open, "all are ended")
