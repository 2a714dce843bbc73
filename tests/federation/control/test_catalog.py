"""The catalogue of shapes: asked once a minute, and anew when prices change."""

import asyncio
from dataclasses import replace

from atoll.group import Provider
from atoll.instance import Shape
from atoll.price import Price, PriceList
from federation.control.catalog import Catalog
from providers.prices.book import Book
from tests.fakes.cloud import SMALL, MemoryCloud
from tests.fakes.plane import FakeChance, FakeClock
from tests.federation.control.ring import CONFIG

VIRTUAL_TIME = True

PROVIDER = Provider(name="cloud", kind="memory")
LISTED = PriceList(provider="cloud", source="a list", prices=(Price(shape="small", amount=7),))


class Slow(MemoryCloud):
    """Answers once it may."""

    def __init__(self) -> None:
        super().__init__(replace(SMALL, price=None))
        self.asked, self.answers = asyncio.Event(), asyncio.Event()

    async def shapes(self, prices: Book) -> list[Shape]:
        self.asked.set()
        await self.answers.wait()
        return await super().shapes(prices)


async def test_prices_that_change_while_the_cloud_answers_are_not_missed() -> None:
    cloud, books = Slow(), {"cloud": Book()}

    async def book(row: Provider) -> Book:
        return books[row.name]

    catalog = Catalog(lambda row: cloud, book, CONFIG, FakeClock(), FakeChance())
    before = asyncio.create_task(catalog.shapes(PROVIDER))
    await cloud.asked.wait()
    books["cloud"] = Book(LISTED)
    catalog.forget("cloud")
    cloud.answers.set()
    assert [shape.price for shape in await before] == [None]
    assert [shape.price for shape in await catalog.shapes(PROVIDER)] == [7]
