"""Opening and closing apps at a real control plane, and what a user's API tokens are worth."""

import pytest

from atoll.errors import Forbidden
from atoll.session import AppAccess, AppRule
from tests.federation.control.ring import ring

VIRTUAL_TIME = True


async def test_an_app_is_opened_and_closed_while_its_session_runs() -> None:
    async with ring() as r:
        await r.agent()
        [row] = await r.submit(name="nb", apps={"web": 0}, app_rules={"web": AppRule(prefix=True)})
        await r.until_state(row.id, "running")
        sharing = r.control.sharing
        opened = await sharing.share("default", "nb", "web", AppAccess.PROJECT, by="ada")
        assert opened.spec.rule("web") == AppRule(access=AppAccess.PROJECT, prefix=True)
        assert (await r.session(row.id)).spec == opened.spec
        again = await sharing.share("default", "nb", "web", AppAccess.PROJECT, by="ada")
        assert again.version == opened.version
        await sharing.share("default", "nb", "web", AppAccess.OWNER, by="root")
        with pytest.raises(Forbidden):
            await sharing.share("default", "nb", "web", AppAccess.PUBLIC, by="ada")
        why = await r.control.why.session("default", "nb")
        said = [(event.state, event.message) for event in why.events if event.message.startswith("app ")]
        assert said == [
            ("running", "app web is open to its project: said ada"),
            ("running", "app web is open to its owner: said root"),
        ]
        await r.finish(row.id)
        await r.until_state(row.id, "succeeded")


async def test_a_user_is_worth_what_their_tokens_are() -> None:
    async with ring() as r:
        tokens = r.control.tokens
        assert await tokens.standing("ada") is None
        plain, _ = await tokens.create_api("ada")
        lead, _ = await tokens.create_api("ada", ("lead", "member-lab"))
        await tokens.create_api("bo", ("admin",))
        await tokens.create_join(site="here", group="here", uses=1, ttl_s=60, owner="cy")
        assert await tokens.standing("ada") == ("lead", "member-lab")
        assert await tokens.standing("ada", plain.id) == ()
        assert await tokens.standing("bo", plain.id) is None
        assert await tokens.standing("cy") is None
        await tokens.delete(lead.id)
        assert await tokens.standing("ada") == ()
        await tokens.delete(plain.id)
        assert await tokens.standing("ada") is None
