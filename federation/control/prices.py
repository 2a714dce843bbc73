"""Price lists of providers: kept, updated from live sources, imported from files, checked before they are believed."""

import asyncio
import difflib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import structlog

from atoll import duration
from atoll.clock import Chance
from atoll.errors import AtollError, Conflict, Forbidden, Invalid, NotFound
from atoll.group import Provider
from atoll.price import PriceList
from federation.control.changes import Change, Changes
from providers.errors import Unknown
from providers.prices import file
from providers.prices.book import CURRENCY, Book
from providers.prices.feed import Feed
from providers.prices.sanity import sift

log = structlog.get_logger("control")

FETCH_S = 600.0
"""Seconds after which a live source that has not answered is given up."""
RETRY_S = 900.0
"""Seconds until a live source that failed is asked again, or the provider's `update` where that is shorter."""
AHEAD_S = 86400.0
"""A file dated further in the future than this is refused: it would never be stale, and no other could follow it."""

Verify: TypeAlias = Callable[[bytes, str], Awaitable[str]]
"""Who signed this content, by its signature; raises `Forbidden` unless it is somebody whom the installation trusts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceFile:
    """A price file as it was handed in: its text, the signature beside it, and what it may do.

    `dated` is the age of a CSV, which tells none itself, in Unix seconds.
    """

    name: str
    content: str
    signature: str = ""
    dated: float = 0.0
    provider: str = ""
    unsigned: bool = False
    allow_older: bool = False
    accept_jumps: bool = False

    @property
    def is_csv(self) -> bool:
        """Whether it is a table rather than a document."""
        return self.name.lower().endswith(".csv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a provider's prices stand. `live` says that its cloud has a source; `failure` is that source's last error."""

    provider: Provider
    listed: PriceList | None
    live: bool
    stale: bool
    failure: str = ""
    failed_at: float | None = None


@dataclass(slots=True)
class _Source:
    """A provider's live source and when to ask it next, on the monotonic clock."""

    row: Provider
    feed: Feed | None
    due: float
    failure: str = ""
    failed_at: float | None = None


async def _trust_nobody(content: bytes, signature: str) -> str:  # noqa: ARG001 - a `Verify`
    raise Forbidden("this control plane checks no signatures")


class Prices:
    """Use cases of price lists, and the rounds that keep them fresh. Nothing of this is on a launch's way."""

    def __init__(
        self,
        changes: Changes,
        chance: Chance,
        feeds: Callable[[Provider], Feed | None] | None = None,
        verify: Verify | None = None,
    ) -> None:
        self._changes = changes
        self._clock = changes.clock
        self._chance = chance
        self._feeds = feeds or (lambda _: None)
        self._verify = verify or _trust_nobody
        self._sources: dict[str, _Source] = {}
        self.on_change: Callable[[str], None] = lambda _: None

    async def book(self, row: Provider) -> Book:
        """Return what the provider's driver asks for prices: its list, and the account's rules."""
        async with self._changes.look() as tx:
            listed = await tx.get(PriceList, row.name)
        return Book(listed, row.prices)

    async def standings(self, provider: str = "") -> list[Standing]:
        """Return how the prices of every provider stand, or of one; raise `NotFound` with a near name."""
        async with self._changes.look() as tx:
            rows = await tx.find(Provider)
            lists = {each.provider: each for each in await tx.find(PriceList)}
        chosen = [row for row in rows if provider in ("", row.name)]
        if provider and not chosen:
            raise _no_such(provider, rows)
        return [self._standing(row, lists.get(row.name)) for row in chosen]

    async def update(self, provider: str, *, by: str, accept_jumps: bool = False) -> Standing:
        """Ask a provider's live source now; raise what it raises, or `Invalid` where there is none."""
        (standing,) = await self.standings(provider)
        source = self._source(standing.provider, standing.listed)
        if source.feed is None:
            raise Invalid(
                source.failure or f"providers of kind {source.row.kind} have no live source of prices",
                hint="import a file: atoll prices import FILE" if not source.failure else "",
            )
        await self._fetch(source, by=by, accept_jumps=accept_jumps)
        (standing,) = await self.standings(provider)
        return standing

    async def import_file(self, given: PriceFile, *, by: str) -> list[Standing]:
        """Put a file's lists in place, all or none; return how those providers' prices stand.

        Raises `Forbidden` unless the file is signed by somebody trusted or may be unsigned, `Conflict` when
        it is older than what is in place, `Invalid` for one that cannot be read or fits no provider.
        """
        signer = await self._signer(given)
        note = f"signed by {signer}" if signer else "unsigned"
        standings = await self.standings()
        rows = [each.provider for each in standings]
        if given.provider and given.provider not in {row.name for row in rows}:
            raise _no_such(given.provider, rows)
        pairs = self._pairs(given, rows)
        async with self._changes.commit("prices.keep") as change:
            for row, listed in pairs:
                source = f"{listed.source.removesuffix(f' ({note})')} ({note})"
                told = f"imported from {given.name} ({note}) by {by}"
                vouched = replace(listed, source=source)
                await self._keep(
                    change, row, vouched, told, allow_older=given.allow_older, accept_jumps=given.accept_jumps
                )
        for row, _ in pairs:
            self.on_change(row.name)
        return [each for row, _ in pairs for each in await self.standings(row.name)]

    async def export(self, provider: str = "") -> str:
        """Return the lists in place as a price file; raise `NotFound` when there are none."""
        lists = [
            file.Regional(kind=each.provider.kind, region=file.region_of(each.provider), listed=each.listed)
            for each in await self.standings(provider)
            if each.listed
        ]
        if not lists:
            raise NotFound("there are no price lists to export", hint="get some: atoll prices update")
        return file.write(lists, self._clock.now(), "an Atoll installation")

    async def round(self) -> None:
        """Ask the live sources that are due, all at once: a slow one delays no other (L2)."""
        standings = await self.standings()
        sources = [self._source(each.provider, each.listed) for each in standings]
        names = {source.row.name for source in sources}
        self._sources = {name: source for name, source in self._sources.items() if name in names}
        now = self._clock.monotonic()
        due = [source for source in sources if source.feed is not None and source.due <= now]
        await asyncio.gather(*(self._refresh(source) for source in due))

    async def _refresh(self, source: _Source) -> None:
        try:
            await self._fetch(source, by="the control plane", accept_jumps=False)
        except AtollError as error:
            log.warning("prices not to be had", provider=source.row.name, reason=error.reason, error=error.message)
        except Exception as error:
            source.failure, source.failed_at = f"internal error: {type(error).__name__}", self._clock.now()
            log.error("price source failed", provider=source.row.name, error=repr(error), exc_info=True)

    async def _fetch(self, source: _Source, *, by: str, accept_jumps: bool) -> None:
        row, feed = source.row, source.feed
        pause = min(RETRY_S, row.prices.update_s)
        try:
            if feed is None:
                raise Invalid(source.failure)
            listed = await self._ask(row, feed)
            async with self._changes.commit("prices.keep") as change:
                mine = replace(listed, provider=row.name)
                await self._keep(change, row, mine, f"updated by {by}", accept_jumps=accept_jumps)
        except AtollError as error:
            source.failure, source.failed_at = error.message, self._clock.now()
            raise
        else:
            source.failure, source.failed_at, pause = "", None, row.prices.update_s
        finally:
            # Installations that began together must not ask together for ever.
            source.due = self._clock.monotonic() + pause * self._chance.uniform(0.9, 1.1)
        self.on_change(row.name)

    async def _ask(self, row: Provider, feed: Feed) -> PriceList:
        try:
            async with asyncio.timeout(FETCH_S):
                return await feed.fetch()
        except TimeoutError as error:
            raise Unknown(f"the prices of {row.name} did not come within {FETCH_S:.0f} s") from error

    async def _keep(
        self,
        change: Change,
        row: Provider,
        listed: PriceList,
        told: str,
        *,
        allow_older: bool = False,
        accept_jumps: bool = False,
    ) -> None:
        """Check a list against its rules and against the one in place, and put it there."""
        have = await change.tx.get(PriceList, row.name)
        if await change.tx.get(Provider, row.name) is None:
            raise NotFound(f"there is no provider {row.name!r}")
        if listed.currency != CURRENCY and not row.prices.rate:
            raise Invalid(
                f"the prices are in {listed.currency}, this installation counts in {CURRENCY}",
                hint=f"set prices.rate of provider {row.name}: what one {listed.currency} is in {CURRENCY}",
            )
        if listed.at > change.now + AHEAD_S:
            raise Invalid(f"the prices for {row.name} are dated in the future", hint="check the clock of their source")
        if have and int(listed.at) < int(have.at) and not allow_older:  # files have whole seconds
            raise Conflict(
                f"the prices for {row.name} are {duration.rough(have.at - listed.at)} older than those in place",
                hint="--allow-older takes them all the same",
            )
        sifted = sift(listed, have, accept_jumps=accept_jumps)
        if not sifted.prices:
            raise Invalid(
                f"none of the {len(listed.prices)} prices for {row.name} can be believed",
                hint=f"the first: {sifted.remarks[0].price.shape} {sifted.remarks[0].reason}" if sifted.remarks else "",
            )
        if have:
            await change.tx.update(replace(sifted, version=have.version))
        else:
            await change.tx.insert(sifted)
        dropped = sum(remark.dropped for remark in sifted.remarks)
        text = f"{len(sifted.prices)} prices of {listed.source}, {dropped} dropped; {told}"
        await change.event("price", row.name, "changed", name=row.name, message=text)

    async def _signer(self, given: PriceFile) -> str:
        if given.signature and not given.is_csv:
            return await self._verify(given.content.encode(), given.signature)
        if given.unsigned:
            return ""
        what = "a CSV cannot be signed" if given.is_csv else f"there is no signature beside {given.name}"
        raise Forbidden(what, hint="--unsigned takes it all the same, if you trust where it came from")

    def _pairs(self, given: PriceFile, rows: Sequence[Provider]) -> list[tuple[Provider, PriceList]]:
        if not given.is_csv:
            return file.choose(file.read(given.content), rows, given.provider)
        chosen = [row for row in rows if given.provider in ("", row.name)]
        if len(chosen) != 1:
            raise Invalid("a CSV does not say which provider it is for", hint="name it: --provider NAME")
        at = min(given.dated or self._clock.now(), self._clock.now())
        return [(chosen[0], replace(file.read_csv(given.content, given.name, at), provider=chosen[0].name))]

    def _standing(self, row: Provider, listed: PriceList | None) -> Standing:
        source = self._source(row, listed)
        return Standing(
            provider=row,
            listed=listed,
            live=source.feed is not None,
            stale=listed is not None and row.prices.is_stale(listed.at, self._clock.now()),
            failure=source.failure,
            failed_at=source.failed_at,
        )

    def _source(self, row: Provider, listed: PriceList | None) -> _Source:
        """Return the live source of a provider, made anew when its row has changed."""
        have = self._sources.get(row.name)
        if have and have.row == row:
            return have
        age = self._clock.now() - listed.at if listed else row.prices.update_s
        source = _Source(row, None, self._clock.monotonic() + max(0.0, row.prices.update_s - age))
        try:
            source.feed = self._feeds(row)
        except AtollError as error:
            source.failure, source.failed_at = error.message, self._clock.now()
        self._sources[row.name] = source
        return source


def _no_such(provider: str, rows: Sequence[Provider]) -> NotFound:
    near = difflib.get_close_matches(provider, [row.name for row in rows], 1)
    hint = f"did you mean {near[0]!r}?" if near else "see `atoll provider list`"
    return NotFound(f"there is no provider {provider!r}", hint=hint)
