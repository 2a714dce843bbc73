"""The price file: lists of several providers in one dated document, for installations that reach no cloud's price list.

Pure: text in, lists out. The signature beside it (`ssh-keygen -Y sign`, namespace `atoll-prices`) is over the
document's bytes and is checked before they are read.
"""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from atoll.errors import Invalid
from atoll.fields import Fields, compact, money_text
from atoll.group import Provider
from atoll.money import micros
from atoll.price import Price, PriceList
from atoll.slots import GIB
from atoll.suggest import hint

FORMAT = "atoll-prices/1"
NAMESPACE = "atoll-prices"
"""What signatures of price files are for: one made for another purpose is worth nothing here."""
MAX_ROWS = 200_000
MAX_SOURCE = 200
"""Characters of a source's name that are kept: it is part of every launch's record."""
COLUMNS = ("instance_type", "vcpus", "memory_gib", "gpus", "gpu_model", "on_demand_usd_per_hour")
"""The header of a CSV of on-demand prices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Regional:
    """One list of a file: for providers of `kind` in `region` (empty: in any)."""

    kind: str
    region: str
    listed: PriceList

    def suits(self, provider: Provider) -> bool:
        """Say whether it is the list of this provider."""
        return provider.kind == self.kind and self.region in ("", region_of(provider))


def region_of(provider: Provider) -> str:
    """Return the region in a provider's settings; empty where it has none."""
    return str(provider.settings.get("region") or "")


def read(content: str) -> tuple[Regional, ...]:
    """Return the lists of a document; raise `Invalid` where it is none, naming the place."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"the price file is not JSON: {error}", hint="make one with `atoll prices export`") from error
    fields = Fields(document, "prices")
    if (told := fields.text("format")) != FORMAT:
        raise Invalid(f"the price file's format is {told!r}, not {FORMAT!r}", hint="export it again with this release")
    issued = _moment(fields, "issued_at", None)
    source = fields.text("source")
    listed = fields.raw("lists")
    fields.done()
    if not isinstance(listed, list) or not listed:
        raise Invalid("the price file holds no lists", hint="make one with `atoll prices export`")
    return tuple(_regional(item, f"prices.lists[{n}]", issued, source) for n, item in enumerate(listed))


def write(lists: Sequence[Regional], issued_at: float, source: str) -> str:
    """Return the document of `lists`: one row a line, so that two of them can be compared."""
    head = {"format": FORMAT, "issued_at": _iso(issued_at), "source": source}
    parts = []
    for each in lists:
        told = {"kind": each.kind, "region": each.region, "source": each.listed.source, "at": _iso(each.listed.at)}
        rows = ",\n".join("   " + json.dumps(_row(price)) for price in each.listed.prices)
        start = json.dumps(told | {"currency": each.listed.currency})[:-1]
        parts.append(f'  {start}, "prices": [\n{rows}\n  ]}}')
    return json.dumps(head)[:-1] + ', "lists": [\n' + ",\n".join(parts) + "\n]}\n"


def read_csv(content: str, source: str, at: float) -> PriceList:
    """Return the on-demand prices of a CSV with the header `COLUMNS`, as of `at`; raise `Invalid` for another one."""
    try:
        lines = csv.DictReader(io.StringIO(content.removeprefix("\ufeff")))
        header = [name.strip() for name in lines.fieldnames or ()]
        lines.fieldnames = header
        rows = list(lines)
    except csv.Error as error:
        raise Invalid(f"the CSV cannot be read: {error}", hint="one machine type a line, values by commas") from error
    told = f"header: {','.join(COLUMNS)}"
    for name in header:
        if name not in COLUMNS:
            raise Invalid(f"unknown column {name!r} in the CSV", hint=hint(name, COLUMNS, told))
    if missing := [name for name in (COLUMNS[0], COLUMNS[-1]) if name not in header]:
        raise Invalid(f"the CSV has no column {missing[0]!r}", hint=told)
    if not rows:
        raise Invalid("the CSV has no rows", hint=f"a {told}; then one machine type a line")
    prices = tuple(_csv_price(row, number) for number, row in enumerate(rows, 2))
    return PriceList(provider="", source=source, currency="USD", at=at, prices=prices)


def choose(
    lists: Sequence[Regional], providers: Sequence[Provider], only: str = ""
) -> list[tuple[Provider, PriceList]]:
    """Return which list goes to which provider; with `only`, to that one of them.

    Kind and region must agree. A provider that does not tell its region gets the file's only list of its
    kind when it is named. Raises `Invalid` when nothing fits.
    """
    found = []
    for provider in providers:
        if only and provider.name != only:
            continue
        fitting = [each for each in lists if each.suits(provider)]
        if only and not fitting and not region_of(provider):
            fitting = [each for each in lists if each.kind == provider.kind]
        if len(fitting) > 1:
            names = ", ".join(each.region or "any" for each in fitting)
            raise Invalid(
                f"the file has {len(fitting)} lists for provider {provider.name} ({names})",
                hint="set the provider's region, or export one list",
            )
        found += [(provider, replace(each.listed, provider=provider.name)) for each in fitting]
    if not found:
        held = ", ".join(sorted({f"{each.kind} {each.region}".strip() for each in lists}))
        raise Invalid(
            f"the price file has no list for {only or 'any provider here'}: it holds {held}",
            hint="kind and region must be the provider's; see `atoll provider list`",
        )
    return found


def _regional(item: object, path: str, issued: float, source: str) -> Regional:
    fields = Fields(item, path)
    kind = fields.text("kind")
    if not kind:
        raise fields.missing("kind", "name the kind of provider, for example aws")
    rows = fields.raw("prices")
    if not isinstance(rows, list) or not 0 < len(rows) <= MAX_ROWS:
        raise Invalid(f"{path}.prices must be a list of 1 to {MAX_ROWS} rows", hint="export it again")
    listed = PriceList(
        provider="",
        source=(fields.text("source") or source or "a price file")[:MAX_SOURCE],
        currency=fields.text("currency") or "USD",
        at=_moment(fields, "at", issued),
        prices=tuple(_price(row, f"{path}.prices[{number}]") for number, row in enumerate(rows)),
    )
    region = fields.text("region")
    fields.done()
    return Regional(kind=kind, region=region, listed=listed)


def _price(item: object, path: str) -> Price:
    fields = Fields(item, path)
    shape = fields.text("shape")
    if not shape:
        raise fields.missing("shape", "name the machine type")
    price = Price(
        shape=shape,
        amount=_amount(fields.raw("price"), f"{path}.price"),
        zone=fields.text("zone"),
        spot=bool(fields.flag("spot", False)),
        cpu=fields.milli("cpu", 0),
        memory=fields.bytes("memory", 0),
        gpus=fields.integer("gpus", 0, low=0, high=1024),
        gpu_model=fields.text("gpu_model"),
        gpu_memory=fields.bytes("gpu_memory", 0),
    )
    fields.done()
    return price


def _row(price: Price) -> Mapping[str, Any]:
    facts = {
        "zone": price.zone,
        "spot": price.spot or None,
        "cpu": price.cpu / 1000 if price.cpu else None,
        "memory": price.memory or None,
        "gpus": price.gpus or None,
        "gpu_model": price.gpu_model,
        "gpu_memory": price.gpu_memory or None,
    }
    return {"shape": price.shape, "price": money_text(price.amount), **compact(facts)}


def _amount(value: object, path: str) -> int:
    # Zero and less are read: the checks drop such rows and show them, instead of refusing the whole file.
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > 1e9:
        raise Invalid(f"{path} must be an amount of money an hour, not {value!r}", hint="write it like 0.096")
    return micros(value)


def _csv_price(line: Mapping[str, str | None], number: int) -> Price:
    def told(column: str) -> str:
        return (line.get(column) or "").strip()

    def figure(column: str, low: float = 0.0) -> float:
        try:
            value = float(told(column) or 0)
        except ValueError:
            value = math.nan
        if not low <= value <= 1e9:
            raise Invalid(f"line {number} of the CSV: {column} is {told(column)!r}", hint="a number is wanted")
        return value

    if not told("instance_type"):
        raise Invalid(f"line {number} of the CSV names no instance_type", hint="one machine type a line")
    return Price(
        shape=told("instance_type"),
        amount=micros(figure("on_demand_usd_per_hour", -1e9)),
        cpu=round(figure("vcpus") * 1000),
        memory=round(figure("memory_gib") * GIB),
        gpus=int(figure("gpus")),
        gpu_model=told("gpu_model"),
    )


def _moment(fields: Fields, key: str, default: float | None) -> float:
    text = fields.text(key)
    if not text and default is not None:
        return default
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise Invalid(
            f"{fields.path}.{key} is {text!r}, not a date", hint="write it like 2026-11-02T10:00:00Z"
        ) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
