"""Routes of price lists: how they stand, updating them from live sources, importing and exporting files."""

from fnmatch import fnmatchcase

import msgspec

from atoll.client import views as api
from atoll.price import Price, Remark, Stale
from atoll.pricing import dump_price_rules
from federation.api.route import Access, Call, Page, Query, Route
from federation.api.views import units
from federation.control.prices import PriceFile, Standing
from providers.prices.book import Book

_BASE = "/v1/prices"
MAX_FILE = 32 * 1024 * 1024
"""Bytes of a price file; one region of a large cloud has about 1 MiB of prices."""


class Update(msgspec.Struct, kw_only=True):
    """With `accept_jumps` prices that fell to less than a fifth are believed."""

    accept_jumps: bool = False


class File(msgspec.Struct, kw_only=True):
    """A price file as it stands on disk, and the signature beside it; see `PriceFile`."""

    name: str
    content: str
    signature: str = ""
    dated: float = 0.0
    provider: str = ""
    unsigned: bool = False
    allow_older: bool = False
    accept_jumps: bool = False


class Document(msgspec.Struct, kw_only=True):
    """A price file's text, byte for byte as it is to be signed."""

    content: str


class RowsQuery(Query):
    """`shape` is a glob pattern for the names of the machine types shown."""

    shape: str = "*"


class ExportQuery(Query):
    """Only the list of `provider` (empty: all)."""

    provider: str = ""


async def list_(call: Call) -> Page[api.PriceListView]:
    """Return how the prices of every provider stand, without rows."""
    return Page([view(each, call.now) for each in await call.control.prices.standings()])


async def get(call: Call) -> api.PriceListView:
    """Return how a provider's prices stand, with the rows that match and what the checks said."""
    query: RowsQuery = call.query
    (standing,) = await call.control.prices.standings(call.path["name"])
    return view(standing, call.now, query.shape)


async def update(call: Call) -> api.PriceListView:
    """Ask a provider's live source for prices now."""
    body: Update = call.body
    name, by = call.path["name"], call.caller.owner
    return view(await call.control.prices.update(name, by=by, accept_jumps=body.accept_jumps), call.now, "")


async def import_(call: Call) -> Page[api.PriceListView]:
    """Put the lists of a price file in place, all or none; its signature is checked here."""
    body: File = call.body
    given = PriceFile(**msgspec.structs.asdict(body))
    return Page([view(e, call.now, "") for e in await call.control.prices.import_file(given, by=call.caller.owner)])


async def export(call: Call) -> Document:
    """Return the lists in place as a price file."""
    query: ExportQuery = call.query
    return Document(content=await call.control.prices.export(query.provider))


def view(standing: Standing, now: float, shape: str | None = None) -> api.PriceListView:
    """Return how prices stand, with rows and remarks that match `shape`; "" is for remarks alone, None for neither."""
    row, listed = standing.provider, standing.listed
    prices = listed.prices if listed else ()
    remarks = listed.remarks if listed else ()
    book = Book(listed, row.prices)
    return api.PriceListView(
        provider=row.name,
        kind=row.kind,
        source=listed.source if listed else "",
        currency=listed.currency if listed else "",
        at=listed.at if listed else None,
        age_s=max(0.0, now - listed.at) if listed else None,
        stale=standing.stale,
        blocks=row.prices.stale is Stale.BLOCK,
        live=standing.live,
        count=len(prices),
        dropped=sum(each.dropped for each in remarks),
        failure=standing.failure,
        failed_at=standing.failed_at,
        rules=dump_price_rules(row.prices),
        rows=[_row(each, book) for each in prices if shape and fnmatchcase(each.shape, shape)],
        remarks=[]
        if shape is None
        else [_remark(each) for each in remarks if fnmatchcase(each.price.shape, shape or "*")],
    )


def _row(price: Price, book: Book) -> api.PriceView:
    paid = book.price(price.shape, price.zone, price.spot)
    return api.PriceView(
        shape=price.shape,
        zone=price.zone,
        spot=price.spot,
        listed=units(price.amount),
        price=None if paid is None else units(paid),
        cpu=price.cpu / 1000,
        gpus=price.gpus,
        gpu_model=price.gpu_model,
    )


def _remark(remark: Remark) -> api.PriceRemarkView:
    price = remark.price
    return api.PriceRemarkView(
        shape=price.shape,
        zone=price.zone,
        spot=price.spot,
        listed=units(price.amount),
        reason=remark.reason,
        dropped=remark.dropped,
    )


ROUTES = (
    Route(
        method="GET", path=_BASE, handle=list_, access=Access.USER,
        answer=Page[api.PriceListView], summary="How the prices of all providers stand",
    ),
    Route(
        method="POST", path=_BASE + ":import", handle=import_, access=Access.ADMIN, body=File, limit=MAX_FILE,
        answer=Page[api.PriceListView], summary="Import a price file",
    ),
    Route(
        method="GET", path=_BASE + ":export", handle=export, access=Access.USER, query=ExportQuery,
        answer=Document, summary="Export the lists in place as a price file",
    ),
    Route(
        method="GET", path=_BASE + "/{name}", handle=get, access=Access.USER, query=RowsQuery,
        answer=api.PriceListView, summary="The prices of a provider",
    ),
    Route(
        method="POST", path=_BASE + "/{name}:update", handle=update, access=Access.ADMIN, body=Update,
        answer=api.PriceListView, summary="Read a provider's live prices now",
    ),
)  # fmt: skip
