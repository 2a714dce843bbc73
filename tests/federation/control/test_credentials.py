"""Cloud credentials: sealed at rest, unsealed for drivers only, replaced by ones that work."""

import json
from dataclasses import replace

import msgspec
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from atoll.errors import Conflict, Invalid, Refused
from atoll.group import Provider
from atoll.host.system import SystemChance
from atoll.slots import Request
from federation.api import views
from federation.control.sealing import Seal, is_sealed
from providers.errors import Auth
from providers.port import Finding
from tests.federation.control.ring import Ring, ring

VIRTUAL_TIME = True

SECRET = "wJalrXUtnFEMI-K7MDENG"
KEY = b"k" * 32


def account(secret: str = SECRET, **more: object) -> Provider:
    settings: dict[str, object] = {"region": "r1", "credentials": {"id": "AKIA", "secret": secret}, **more}
    return Provider(name="cloud", kind="memory", settings=settings)


async def stored(r: Ring) -> Provider:
    async with r.store.transaction() as tx:
        row = await tx.get(Provider, "cloud")
    assert row
    return row


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.booleans(), max_size=4), st.text(max_size=20))
def test_what_was_sealed_opens_at_its_place_only(clear: dict[str, object], place: str) -> None:
    seal = Seal(KEY, SystemChance())
    sealed = seal.close(clear, place)
    assert is_sealed(sealed)
    assert seal.open(sealed, place) == clear
    for other, where in ((Seal(b"x" * 32, SystemChance()), place), (seal, place + "x")):
        with pytest.raises(Refused, match="cannot be opened"):
            other.open(sealed, where)


@pytest.mark.parametrize("damaged", ["sealed:1:", "sealed:1:!!", "sealed:1:AAAA", "nonsense"])
def test_what_is_no_seal_is_refused(damaged: str) -> None:
    with pytest.raises(Refused, match="cannot be opened"):
        Seal(KEY, SystemChance()).open(damaged, "cloud")


def test_two_seals_of_one_secret_differ() -> None:
    seal = Seal(KEY, SystemChance())
    assert seal.close({"a": 1}, "p") != seal.close({"a": 1}, "p")


async def test_no_clear_text_in_store_views_events_or_logs() -> None:
    async with ring() as r:
        with structlog.testing.capture_logs() as logged:
            await r.control.providers.apply(account())
            row = await stored(r)
            await r.control.providers.shapes("cloud")
            await r.control.health.look("cloud")
        assert is_sealed(row.settings["credentials"])
        assert r.accounts[-1].settings["credentials"] == {"id": "AKIA", "secret": SECRET}, "its driver gets it in clear"
        shown = views.provider(row, 0)
        assert shown.settings == {"region": "r1", "credentials": "***"}
        events = await r.store.events(0, 1000)
        everything = f"{row!r} {json.dumps(logged, default=repr)} {events!r} {msgspec.json.encode(shown)!r}"
        assert SECRET not in everything
        assert "AKIA" not in everything


@pytest.mark.parametrize("given", [None, "***", {"id": "AKIA", "secret": SECRET}])
async def test_applying_without_or_with_equal_credentials_keeps_the_stored_ones(given: object) -> None:
    async with ring() as r:
        await r.control.providers.apply(account())
        before = await stored(r)
        settings: dict[str, object] = {"region": "r2"} | ({} if given is None else {"credentials": given})
        await r.control.providers.apply(Provider(name="cloud", kind="memory", settings=settings))
        after = await stored(r)
        assert after.settings == before.settings | {"region": "r2"}
        assert after.credentials_at == before.credentials_at
        assert r.accounts[-1].settings["credentials"] == {"id": "AKIA", "secret": SECRET}


async def test_applying_other_credentials_replaces_them_and_none_removes_them() -> None:
    async with ring() as r:
        await r.control.providers.apply(account())
        before = await stored(r)
        await r.control.providers.apply(account("other"))
        assert (await stored(r)).settings["credentials"] != before.settings["credentials"]
        assert r.accounts[-1].settings["credentials"] == {"id": "AKIA", "secret": "other"}
        await r.control.providers.apply(Provider(name="cloud", kind="memory", settings={"credentials": {}}))
        row = await stored(r)
        assert (row.settings, row.credentials_at) == ({}, None)
        with pytest.raises(Invalid, match="must be a mapping"):
            await r.control.providers.apply(Provider(name="cloud", kind="memory", settings={"credentials": "text"}))


async def test_rotation_replaces_what_works_while_launches_go_on() -> None:
    async with ring() as r:
        await r.elastic()
        await r.control.providers.apply(account())
        [row] = await r.submit(resources=Request(cpu=3000))
        await r.until_state(row.id, "running")
        before = await stored(r)
        await r.control.providers.rotate("cloud", {"id": "NEW", "secret": "new"}, by="ada")
        after = await stored(r)
        assert after.settings["region"] == "r1"
        assert after.credentials_at is not None
        assert before.credentials_at is not None
        assert after.credentials_at >= before.credentials_at
        assert (await r.session(row.id)).state == "running"
        [more] = await r.submit(resources=Request(cpu=3000))
        await r.until_state(more.id, "running")
        assert r.accounts[-1].settings["credentials"] == {"id": "NEW", "secret": "new"}
        events = await r.store.events(0, 1000, ("provider",))
        assert (events[-1].state, events[-1].message) == ("rotated", "by ada")
        await r.finish(row.id)
        await r.finish(more.id)


async def test_credentials_that_do_not_work_replace_nothing() -> None:
    async with ring() as r:
        await r.control.providers.apply(account())
        before = await stored(r)
        r.cloud.well = Finding(check="credential", ok=False, message="the key is wrong")
        with pytest.raises(Conflict, match="credential: the key is wrong") as refused:
            await r.control.providers.rotate("cloud", {"id": "NEW", "secret": "bad-one"}, by="ada")
        assert "bad-one" not in str(refused.value)
        assert await stored(r) == before

        async def fails() -> list[Finding]:
            raise Auth("no such key")

        r.cloud.doctor = fails  # type: ignore[method-assign]
        with pytest.raises(Conflict, match="no such key"):
            await r.control.providers.rotate("cloud", {"id": "NEW", "secret": "bad-one"}, by="ada")
        with pytest.raises(Invalid, match="no credentials"):
            await r.control.providers.rotate("cloud", {}, by="ada")
        assert await stored(r) == before


async def test_a_provider_whose_seal_does_not_open_holds_up_nothing_else() -> None:
    async with ring() as r:
        await r.elastic()
        await r.control.providers.apply(account())
        row = await stored(r)
        async with r.store.transaction() as tx:
            await tx.update(replace(row, settings=row.settings | {"credentials": "sealed:1:AAAA"}))
        agent = await r.agent()
        [session] = await r.submit()
        await r.finish(session.id)
        await r.until_state(session.id, "succeeded")
        assert agent.started
        await r.control.providers.rotate("cloud", {"id": "NEW", "secret": "new"}, by="ada")
        assert await r.control.providers.shapes("cloud")
