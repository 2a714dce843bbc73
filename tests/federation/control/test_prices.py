"""Price lists in the control plane: kept, checked, stale, and what launches and the router make of them."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from atoll.errors import Conflict, Forbidden, Invalid, NotFound
from atoll.group import Provider, Size
from atoll.money import micros
from atoll.price import Commitment, Price, PriceList, PriceRules, Stale, Upkeep
from atoll.session import SessionSpec
from atoll.site import Site
from atoll.slots import Request
from federation.control.changes import Changes
from federation.control.prices import PriceFile, Prices, Standing
from federation.control.steps import Steps
from federation.store.bus import LocalBus
from providers.errors import Auth
from providers.prices import file
from providers.prices.feed import Feed
from tests.fakes.plane import NOW, FakeChance, FakeClock
from tests.fakes.store import MemoryStore
from tests.federation.control.ring import ring, until

VIRTUAL_TIME = True

DAY = 86400.0


class ScriptedFeed:
    """A live source: gives `listed`, or fails."""

    def __init__(self, listed: PriceList) -> None:
        self.listed = listed
        self.fails = False
        self.asked = 0

    async def fetch(self) -> PriceList:
        self.asked += 1
        if self.fails:
            raise Auth("may not read prices")
        return self.listed


def listed(*amounts: float, at: float = NOW, currency: str = "USD") -> PriceList:
    prices = tuple(Price(shape=f"c{n}", amount=micros(amount)) for n, amount in enumerate(amounts, 1))
    return PriceList(provider="", source="a list", at=at, prices=prices, currency=currency)


def written(*amounts: float, at: float = NOW, kind: str = "aws") -> str:
    return file.write([file.Regional(kind=kind, region="", listed=listed(*amounts, at=at))], at, "a bazaar")


def signed(content: str) -> str:
    return f"ops signed {hashlib.sha256(content.encode()).hexdigest()}"


async def check(content: bytes, signature: str) -> str:
    if signature != signed(content.decode()):
        raise Forbidden("it is signed by nobody who is trusted here")
    return "ops"


class Shop:
    """Price use cases over a memory store with two providers, of which `aws` has a live source."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.clock = FakeClock()
        self.feed = ScriptedFeed(listed(0.1, 0.2))
        changes = Changes(self.store, LocalBus(), self.clock, Steps())
        self.prices = Prices(changes, FakeChance(), lambda row: self.feed if row.kind == "aws" else None, check)
        self.changed: list[str] = []
        self.prices.on_change = self.changed.append

    async def furnish(self, rules: PriceRules | None = None) -> "Shop":
        async with self.store.transaction() as tx:
            await tx.insert(Provider(name="aws", kind="aws", prices=rules or PriceRules()))
            await tx.insert(Provider(name="sim", kind="sim"))
        return self

    async def standing(self) -> Standing:
        (standing,) = await self.prices.standings("aws")
        return standing

    async def told(self) -> list[str]:
        return [event.message for event in await self.store.events(0) if event.kind == "price"]


async def test_a_live_list_is_put_in_place_and_told() -> None:
    shop = await Shop().furnish()
    assert (await shop.standing()).listed is None
    standing = await shop.prices.update("aws", by="ada")
    assert standing.listed is not None
    assert (standing.listed.provider, standing.stale, standing.live) == ("aws", False, True)
    assert shop.changed == ["aws"]
    assert await shop.told() == ["2 prices of a list, 0 dropped; updated by ada"]
    book = await shop.prices.book(standing.provider)
    assert book.price("c2", "a", False) == micros(0.2)


async def test_who_has_no_live_source_is_told_what_to_do() -> None:
    shop = await Shop().furnish()
    with pytest.raises(Invalid, match="kind sim have no live source") as caught:
        await shop.prices.update("sim", by="ada")
    assert "atoll prices import" in caught.value.hint
    with pytest.raises(NotFound, match="no provider 'awz'") as missing:
        await shop.prices.update("awz", by="ada")
    assert "'aws'" in missing.value.hint


async def test_a_source_that_fails_leaves_the_last_list_and_is_shown() -> None:
    shop = await Shop().furnish()
    await shop.prices.update("aws", by="ada")
    shop.feed.fails = True
    with pytest.raises(Auth):
        await shop.prices.update("aws", by="ada")
    standing = await shop.standing()
    assert (standing.failure, standing.failed_at) == ("may not read prices", NOW)
    assert standing.listed is not None
    shop.feed.fails = False
    assert (await shop.prices.update("aws", by="ada")).failure == ""


class BrokenFeed:
    """A source with a defect."""

    async def fetch(self) -> PriceList:
        raise ZeroDivisionError


async def test_a_source_with_a_defect_holds_up_no_other() -> None:
    shop = await Shop().furnish()
    feeds: dict[str, Feed] = {"aws": shop.feed, "sim": BrokenFeed()}
    changes = Changes(shop.store, LocalBus(), shop.clock, Steps())
    prices = Prices(changes, FakeChance(), lambda row: feeds[row.name], check)
    await prices.round()
    good, bad = await prices.standings()
    assert (good.failure, bad.failure) == ("", "internal error: ZeroDivisionError")
    assert shop.feed.asked == 1


async def test_rounds_update_when_it_is_time_and_sooner_after_a_failure() -> None:
    shop = await Shop().furnish()
    await shop.prices.round()
    await shop.prices.round()
    assert shop.feed.asked == 1
    shop.clock.time += DAY * 0.8
    await shop.prices.round()
    assert shop.feed.asked == 1
    shop.clock.time += DAY * 0.3
    shop.feed.fails = True
    await shop.prices.round()
    shop.clock.time += 600
    await shop.prices.round()
    assert shop.feed.asked == 2
    shop.clock.time += 600
    await shop.prices.round()
    assert shop.feed.asked == 3
    assert (await shop.standing()).failure


async def test_a_restart_does_not_ask_again_before_it_is_time() -> None:
    shop = await Shop().furnish()
    await shop.prices.round()
    after = Shop()
    after.store, after.clock = shop.store, shop.clock
    changes = Changes(shop.store, LocalBus(), shop.clock, Steps())
    after.prices = Prices(changes, FakeChance(), lambda _: after.feed, check)
    await after.prices.round()
    assert after.feed.asked == 1  # sim, which has no list yet
    shop.clock.time += DAY
    await after.prices.round()
    assert after.feed.asked >= 2


async def test_doubtful_rows_are_dropped_and_kept_for_people() -> None:
    shop = await Shop().furnish()
    shop.feed.listed = listed(0.1, 0.0)
    standing = await shop.prices.update("aws", by="ada")
    assert standing.listed is not None
    assert [remark.price.shape for remark in standing.listed.remarks] == ["c2"]
    assert "1 dropped" in (await shop.told())[0]
    shop.feed.listed = listed(0.0)
    with pytest.raises(Invalid, match="none of the 1 prices") as caught:
        await shop.prices.update("aws", by="ada")
    assert "c1 is zero" in caught.value.hint
    assert len((await shop.standing()).listed.prices) == 1  # type: ignore[union-attr]


async def test_a_fall_waits_for_somebody_to_accept_it() -> None:
    shop = await Shop().furnish()
    await shop.prices.update("aws", by="ada")
    shop.feed.listed = listed(0.1, 0.02, at=NOW + 1)
    standing = await shop.prices.update("aws", by="ada")
    assert (await shop.prices.book(standing.provider)).price("c2", "", False) is None
    standing = await shop.prices.update("aws", by="ada", accept_jumps=True)
    assert (await shop.prices.book(standing.provider)).price("c2", "", False) == micros(0.02)


async def test_a_signed_file_is_imported_for_whom_it_suits() -> None:
    shop = await Shop().furnish()
    content = written(0.3)
    given = PriceFile(name="p.json", content=content, signature=signed(content))
    (standing,) = await shop.prices.import_file(given, by="ada")
    assert standing.provider.name == "aws"
    assert standing.listed is not None
    assert standing.listed.source == "a list (signed by ops)"
    assert "imported from p.json (signed by ops) by ada" in (await shop.told())[0]
    assert shop.changed == ["aws"]


async def test_an_altered_or_unsigned_file_changes_nothing() -> None:
    shop = await Shop().furnish()
    content = written(0.3)
    altered = PriceFile(name="p.json", content=written(0.1), signature=signed(content))
    with pytest.raises(Forbidden, match="nobody who is trusted"):
        await shop.prices.import_file(altered, by="ada")
    with pytest.raises(Forbidden, match="no signature beside p") as caught:
        await shop.prices.import_file(replace(altered, signature=""), by="ada")
    assert "--unsigned" in caught.value.hint
    assert await shop.told() == []
    await shop.prices.import_file(replace(altered, signature="", unsigned=True), by="ada")
    assert "(unsigned) by ada" in (await shop.told())[0]


async def test_an_older_file_is_refused_unless_allowed() -> None:
    shop = await Shop().furnish()
    await shop.prices.update("aws", by="ada")
    old = PriceFile(name="p.json", content=written(0.3, at=NOW - DAY), unsigned=True)
    with pytest.raises(Conflict, match="1d older than those in place"):
        await shop.prices.import_file(old, by="ada")
    (standing,) = await shop.prices.import_file(replace(old, allow_older=True), by="ada")
    assert standing.listed is not None
    assert standing.listed.at == NOW - DAY
    ahead = PriceFile(name="p.json", content=written(0.3, at=NOW + 3 * DAY), unsigned=True)
    with pytest.raises(Invalid, match="dated in the future"):
        await shop.prices.import_file(ahead, by="ada")


async def test_another_currency_needs_a_rate() -> None:
    shop = await Shop().furnish()
    shop.feed.listed = listed(0.1, currency="EUR")
    with pytest.raises(Invalid, match="in EUR, this installation counts in USD") as caught:
        await shop.prices.update("aws", by="ada")
    assert "prices.rate" in caught.value.hint
    rich = await Shop().furnish(PriceRules(rate=1.5))
    rich.feed.listed = listed(0.1, currency="EUR")
    standing = await rich.prices.update("aws", by="ada")
    assert (await rich.prices.book(standing.provider)).price("c1", "", False) == micros(0.15)


async def test_a_csv_needs_a_provider_and_a_word_that_it_is_unsigned() -> None:
    shop = await Shop().furnish()
    text = ",".join(file.COLUMNS) + "\nm5.large,2,8.0,0,,0.096\n"
    given = PriceFile(name="p.CSV", content=text, signature="any", dated=NOW - 5)
    with pytest.raises(Forbidden, match="a CSV cannot be signed"):
        await shop.prices.import_file(given, by="ada")
    with pytest.raises(Invalid, match="does not say which provider"):
        await shop.prices.import_file(replace(given, unsigned=True), by="ada")
    (standing,) = await shop.prices.import_file(replace(given, unsigned=True, provider="sim"), by="ada")
    assert standing.listed is not None
    assert (standing.listed.at, standing.listed.source) == (NOW - 5, "p.CSV (unsigned)")


async def test_an_export_imports_elsewhere_with_its_own_date() -> None:
    shop = await Shop().furnish()
    with pytest.raises(NotFound, match="no price lists to export"):
        await shop.prices.export()
    await shop.prices.update("aws", by="ada")
    shop.clock.time += 3 * DAY
    content = await shop.prices.export()
    other = await Shop().furnish()
    other.clock.time = shop.clock.time
    (standing,) = await other.prices.import_file(PriceFile(name="x", content=content, unsigned=True), by="eve")
    assert standing.listed is not None
    assert (standing.listed.at, standing.listed.prices) == (NOW, shop.feed.listed.prices)


async def test_a_list_becomes_stale() -> None:
    shop = await Shop().furnish(PriceRules(stale_after_s=DAY))
    await shop.prices.update("aws", by="ada")
    shop.clock.time += DAY
    assert not (await shop.standing()).stale
    shop.clock.time += 1
    assert (await shop.standing()).stale


async def test_a_launch_records_price_and_list_and_a_stale_list_can_block_it(tmp_path: Path) -> None:
    async with ring() as r:
        await r.elastic()
        now = r.control.clock.now()
        content = file.write(
            [
                file.Regional(
                    kind="memory",
                    region="",
                    listed=PriceList(
                        provider="", source="bazaar", at=now - 10 * DAY, prices=(Price(shape="small", amount=777),)
                    ),
                )
            ],
            now,
            "x",
        )
        r.cloud.offered = [replace(r.cloud.offered[0], name="small")]
        await r.control.prices.import_file(PriceFile(name="f", content=content, unsigned=True), by="ada")
        row = await r.control.providers.get("cloud")
        await r.control.providers.apply(replace(row, prices=PriceRules(stale=Stale.BLOCK)))
        [session] = await r.submit(resources=Request(cpu=3000))

        async def refused() -> bool:
            decision = await r.control.offers.search(
                SessionSpec(command=("x",), resources=Request(cpu=3000)), project="default", owner="me"
            )
            return any(each.reason == "STALE_PRICES" and "10d old" in each.message for each in decision.rejected)

        await until(refused, "rejected for stale prices")
        assert r.cloud.creates == 0
        await r.control.providers.apply(replace(row, prices=PriceRules()))
        await r.finish(session.id)
        (instance,) = await r.control.instances.list()
        assert instance.shape.price == 777
        assert instance.shape.catalogue == f"bazaar (unsigned) @{int(now - 10 * DAY)}"
        with pytest.raises(Conflict):
            await r.control.providers.delete("cloud")


async def test_machines_beyond_a_commitment_are_recorded_at_the_lists_price() -> None:
    async with ring() as r:
        await r.elastic(size=Size(max=3))
        shape = r.cloud.offered[0]
        rules = PriceRules(commitments=(Commitment(shape=shape.name, count=2, price=5),))
        await r.control.providers.apply(replace(await r.control.providers.get("cloud"), prices=rules))
        rows = await r.submit(count=3, resources=Request(cpu=3000))
        for row in rows:
            await r.until_state(row.id, "running")
        prices = sorted(each.shape.price or 0 for each in await r.control.instances.list())
        assert prices == [5, 5, shape.price]


async def test_a_deleted_provider_takes_its_list_along() -> None:
    async with ring() as r:
        await r.control.providers.apply(Provider(name="cloud", kind="memory"))
        text = ",".join(file.COLUMNS) + "\nsmall,2,8.0,0,,0.096\n"
        given = PriceFile(name="p.csv", content=text, unsigned=True)
        await r.control.prices.import_file(given, by="ada")
        await r.control.providers.delete("cloud")
        assert r.store.rows(PriceList) == []
        await r.control.providers.apply(Provider(name="cloud", kind="memory"))
        (standing,) = await r.control.prices.standings()
        assert standing.listed is None


async def test_a_sites_new_price_is_that_of_its_registered_machines() -> None:
    async with ring() as r:
        await r.control.sites.apply(Site(name="here", price=5))
        await r.agent()
        upkeep = Upkeep(watts=400, tariff=micros(0.25))
        await r.control.sites.apply(Site(name="here", price=upkeep.per_hour, upkeep=upkeep))
        (agent,) = await r.control.agents.list()
        assert agent.price == micros(0.1)
        decision = await r.control.offers.search(SessionSpec(command=("x",)), project="default", owner="me")
        assert 0 < decision.ranked[0].price <= micros(0.1)
