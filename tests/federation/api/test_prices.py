"""Price routes over the fake control plane's real use cases."""

import hashlib
import io

import msgspec

from atoll.group import Provider
from atoll.money import micros
from atoll.price import Price, PriceList, PriceRules, Stale
from providers.prices import file
from tests.fakes.plane import NOW
from tests.federation.served import BEARER, Served

PRICES = (
    Price(shape="m5.large", amount=micros(0.1), cpu=2000),
    Price(shape="g5.xlarge", amount=micros(1.0), cpu=4000, gpus=1, gpu_model="A10G"),
    Price(shape="free", amount=0),
)
LISTED = PriceList(provider="", source="a list", at=NOW - 60, prices=PRICES)


class Fixed:
    """A live source that gives one list."""

    async def fetch(self) -> PriceList:
        return LISTED


async def furnish(server: Served, rules: PriceRules | None = None) -> None:
    async with server.plane.store.transaction() as tx:
        await tx.insert(Provider(name="aws", kind="aws", prices=rules or PriceRules(discount=0.5)))
    server.plane.feeds["aws"] = Fixed()


def written() -> str:
    return file.write([file.Regional(kind="aws", region="", listed=LISTED)], NOW, "x")


async def test_prices_are_updated_and_shown(server: Served) -> None:
    await furnish(server)
    (before,) = (await server.good("GET", "/v1/prices")).items
    assert (before.at, before.live, before.count) == (None, True, 0)
    after = await server.good("POST", "/v1/prices/aws:update", {})
    assert (after.count, after.dropped, after.age_s, after.rules) == (2, 1, 60.0, {"discount": 0.5})
    assert [(each.shape, each.dropped) for each in after.remarks] == [("free", True)]
    assert after.rows == []
    shown = await server.good("GET", "/v1/prices/aws?shape=g5.*")
    (row,) = shown.rows
    assert (row.shape, row.listed, row.price, row.cpu, row.gpus, row.gpu_model) == (
        "g5.xlarge",
        1.0,
        0.5,
        4.0,
        1,
        "A10G",
    )
    assert shown.remarks == []
    (overview,) = (await server.good("GET", "/v1/prices")).items
    assert (overview.rows, overview.remarks, overview.dropped) == ([], [], 1)


async def test_a_stale_list_is_shown_as_such(server: Served) -> None:
    await furnish(server, PriceRules(stale_after_s=30, stale=Stale.BLOCK))
    view = await server.good("POST", "/v1/prices/aws:update", {})
    assert (view.stale, view.blocks) == (True, True)


async def test_files_are_exported_and_imported(server: Served) -> None:
    await furnish(server)
    content = written()
    signature = f"ops signed {hashlib.sha256(content.encode()).hexdigest()}"
    body = {"name": "p.json", "content": content, "signature": signature}
    (view,) = (await server.good("POST", "/v1/prices:import", body)).items
    assert (view.provider, view.source, view.count) == ("aws", "a list (signed by ops)", 2)
    exported = (await server.good("GET", "/v1/prices:export?provider=aws")).content
    assert file.read(exported)[0].listed.prices == PRICES[:2]
    status, problem = await server.ask("POST", "/v1/prices:import", {**body, "content": content + " "})
    assert (status, problem.code) == (403, "FORBIDDEN")
    status, problem = await server.ask("POST", "/v1/prices:import", {"name": "p.json", "content": content})
    assert (status, "--unsigned" in problem.hint) == (403, True)
    events = (await server.good("GET", "/v1/events?kinds=price")).items
    assert [(each.key, "signed by ops" in each.message, "by ada" in each.message) for each in events] == [
        ("aws", True, True)
    ]


async def test_a_price_file_may_be_larger_than_other_requests(server: Served) -> None:
    await furnish(server)
    rows = tuple(Price(shape=f"m{n}.large", amount=micros(0.1)) for n in range(40_000))
    regional = file.Regional(kind="aws", region="", listed=PriceList(provider="", source="x", at=NOW, prices=rows))
    body = {"name": "p", "content": file.write([regional], NOW, "x"), "unsigned": True}
    assert len(body["content"]) > 1_500_000  # type: ignore[arg-type]
    headers = {**BEARER, "Content-Type": "application/json"}
    sent = io.BytesIO(msgspec.json.encode(body))
    async with server.http.post(server.url + "/v1/prices:import", data=sent, headers=headers) as answer:
        assert (answer.status, (await answer.json())["items"][0]["count"]) == (200, 40_000)
    big = io.BytesIO(b'{"name": "' + b"x" * 1_100_000 + b'"}')
    async with server.http.post(server.url + "/v1/sites", data=big, headers=headers) as answer:
        assert answer.status == 413


async def test_a_site_says_what_its_price_follows_from(server: Served) -> None:
    price = {"power": "400W", "tariff": 0.25, "purchase": 12000, "years": 4}
    site = await server.good("PUT", "/v1/sites/hall", {"price": price})
    assert (site.price, site.upkeep) == (0.442231, "400 W x 0.25/kWh + 12000 over 4 years")
    assert (await server.good("PUT", "/v1/sites/hall", {"price": 0.1})).upkeep == ""


async def test_unknown_providers_and_those_without_a_source_are_told(server: Served) -> None:
    await server.plane.furnish()
    assert (await server.ask("GET", "/v1/prices/none"))[0] == 404
    status, problem = await server.ask("POST", "/v1/prices/sim:update", {})
    assert (status, problem.code) == (400, "INVALID")
    assert "atoll prices import" in problem.hint
    assert (await server.ask("GET", "/v1/prices:export"))[0] == 404
