"""Who passes the SSH door: names, tokens, owners; and the certificate that the API gives for a key."""

import asyncio
import subprocess
from pathlib import Path

import pytest

from atoll.errors import AtollError, Conflict, NotFound, Unauthorized
from atoll.session import Member, MemberState
from atoll.slots import Slots
from atoll.states import SessionState
from atoll.token import Token, TokenKind
from federation.gateway.sshdoor import SshDoor
from federation.gateway.visitors import Visitor
from tests.fakes.plane import NOW
from tests.federation.served import Served


@pytest.fixture
async def door(server: Served) -> SshDoor:
    return SshDoor(server.services)


async def token(server: Served, key: str, owner: str, *roles: str, kind: TokenKind = TokenKind.API) -> None:
    async with server.plane.store.transaction() as tx:
        await tx.insert(Token(id=key, kind=kind, owner=owner, roles=roles))


async def running(server: Served, name: str = "nb", **more: object) -> str:
    row = await server.plane.sessions.get("default", (await server.submit(name=name, **more)).id)
    member = Member(rank=0, agent="a-1", slots=Slots(1000), state=MemberState.RUNNING, started_at=NOW)
    changed = await server.plane.change(row, state=SessionState.RUNNING, attempt=1, started_at=NOW, members=(member,))
    return changed.id


async def let_in(door: SshDoor, name: str, owner: str = "ada", key: str = "t-ada") -> Visitor:
    ended: list[str] = []
    visitor = await door.admit(name, owner, key, ended.append)
    assert not ended
    return visitor


async def test_an_owner_enters_by_name_id_and_project(server: Served, door: SshDoor) -> None:
    key = await running(server)
    await token(server, "t-ada", "ada")
    for name in ("nb", key, "default/nb", f"default/{key}", "nb.0"):
        visitor = await let_in(door, name)
        assert await door.run_of(visitor) == f"{key}.1.0"
        door.left(visitor)
    await door.close()


async def test_an_administrator_enters_and_others_do_not_learn_what_is_there(server: Served, door: SshDoor) -> None:
    await running(server)
    await token(server, "t-root", "root", "admin")
    await token(server, "t-eve", "eve", "member")
    await let_in(door, "nb", "root", "t-root")
    told = []
    for name in ("nb", "zz"):
        with pytest.raises(NotFound) as refused:
            await let_in(door, name, "eve", "t-eve")
        told.append(refused.value.message.replace(name, "X"))
    assert told[0] == told[1]
    await door.close()


@pytest.mark.parametrize(("owner", "key"), [("ada", "gone"), ("ada", "t-bob"), ("ada", "t-join")])
async def test_a_certificate_is_worth_nothing_without_its_own_token(
    server: Served, door: SshDoor, owner: str, key: str
) -> None:
    await running(server)
    await token(server, "t-bob", "bob")
    await token(server, "t-join", "ada", kind=TokenKind.JOIN)
    with pytest.raises(Unauthorized):
        await let_in(door, "nb", owner, key)


async def test_what_does_not_run_is_not_entered_but_said(server: Served, door: SshDoor) -> None:
    key = (await server.submit(name="later")).id
    await token(server, "t-ada", "ada")
    visitor = await let_in(door, "later")
    with pytest.raises(AtollError, match="queued"):
        await door.run_of(visitor)
    row = await server.plane.sessions.get("default", key)
    await server.plane.change(row, state=SessionState.FAILED)
    with pytest.raises(Conflict, match="ended"):
        await door.run_of(visitor)
    with pytest.raises(NotFound, match="rank 3"):
        await let_in(door, "later.3")
    await door.close()


async def test_visitors_are_sent_home_when_the_door_closes(server: Served, door: SshDoor) -> None:
    await running(server)
    await token(server, "t-ada", "ada")
    ended: list[str] = []
    await door.admit("nb", "ada", "t-ada", ended.append)
    await asyncio.sleep(0)
    await door.close()
    assert ended == ["the control plane is stopping"]


async def test_the_api_signs_a_key_for_a_quarter_of_an_hour(server: Served, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    view = await server.good("POST", "/v1/ssh:certify", {"key": key.with_suffix(".pub").read_text()})
    (tmp_path / "cert").write_text(view.certificate)
    shown = subprocess.run(["ssh-keygen", "-L", "-f", str(tmp_path / "cert")], capture_output=True, text=True).stdout
    assert "user certificate" in shown
    assert f"        {view.user}\n" in shown
    assert "permit-port-forwarding" in shown
    assert "agent" not in shown
    assert view.expires_at == pytest.approx(server.plane.clock.now() + 900)
    assert view.host_key == server.services.ssh.host_public
    status, problem = await server.ask("POST", "/v1/ssh:certify", {"key": "ssh-rsa nonsense"})
    assert (status, problem.code) == (400, "INVALID")


async def test_a_browser_gets_no_certificate(server: Served) -> None:
    origin = {"Origin": server.url, "Authorization": "", **server.page_cookie()}
    status, problem = await server.ask("POST", "/v1/ssh:certify", {"key": "ssh-ed25519 AAAA"}, **origin)
    assert (status, problem.code) == (403, "FORBIDDEN")


async def test_every_door_has_the_same_rule(server: Served) -> None:
    row = await server.plane.sessions.get("default", await running(server, apps={"web": 8000}))
    await server.plane.change(row, owner="bob")
    _, secret = await server.plane.tokens.create_api("eve", ())
    server.bearer = {"Authorization": f"Bearer {secret}"}
    path = "/v1/projects/default/sessions/nb"
    for method, rest in (("GET", "/forward?port=8000"), ("POST", "/apps/web:link")):
        status, problem = await server.ask(method, path + rest)
        assert (status, problem.code) == (403, "FORBIDDEN"), rest
    host = {"Host": f"web--{row.id}.localhost:{server.port}", **server.bearer}
    async with server.http.get(server.url, headers=host) as answer:
        assert answer.status == 403
    assert not server.plane.streams.opened
