"""The documents of a provider and of a site."""

from collections.abc import Mapping
from typing import Any

from atoll.document.common import name_of
from atoll.fields import Fields, compact, money_text
from atoll.group import Orphans, Provider
from atoll.ids import check_name
from atoll.pricing import dump_price_rules, dump_site_price, price_rules, site_price
from atoll.site import Site


def provider(document: Mapping[str, Any]) -> Provider:
    """Return the provider of a document: `name` (default: the type), `type` (the driver), `settings`, `prices`,
    `orphans` (`report`, `quarantine` or `terminate`).

    Where `type` is absent, a `kind` other than `provider` counts as it: a `ProviderView` reads as a document.
    """
    doc = Fields(document, "provider")
    kind = doc.text("kind")
    driver = doc.text("type") or (kind if kind != "provider" else "")
    if not driver:
        raise doc.missing("type", "name the driver, for example `type: sim`")
    name = name_of(doc, "name", "provider", required=False) or check_name(driver, "provider")
    result = Provider(
        name=name,
        kind=driver,
        settings=doc.mapping("settings"),
        prices=price_rules(doc.section("prices")),
        orphans=Orphans(doc.choice("orphans", [policy.value for policy in Orphans], Orphans.TERMINATE.value)),
    )
    doc.done()
    return result


def dump_provider(provider: Provider) -> dict[str, Any]:
    """Return the document of a provider."""
    rest = {
        "settings": dict(provider.settings),
        "prices": dump_price_rules(provider.prices),
        "orphans": provider.orphans.value if provider.orphans is not Orphans.TERMINATE else "",
    }
    return {"name": provider.name, "type": provider.kind, **compact(rest)}


def site(document: Mapping[str, Any]) -> Site:
    """Return the site of a document: `name` (required), `labels`, `price`, `egress`, `blind`.

    `price` is units an hour of a whole agent, or what they follow from: see `atoll.pricing.site_price`; `egress` is
    units a GiB that leaves the site.
    """
    doc = Fields(document, "site", "kind")
    price, upkeep = site_price(doc)
    result = Site(
        name=name_of(doc, "name", "site"),
        labels=doc.texts_by_name("labels"),
        price=price,
        upkeep=upkeep,
        egress=doc.money("egress", 0) or 0,
        blind=bool(doc.flag("blind", False)),
    )
    doc.done()
    return result


def dump_site(site: Site) -> dict[str, Any]:
    """Return the document of a site."""
    return {
        "name": site.name,
        **compact(
            {
                "labels": dict(site.labels),
                "price": dump_site_price(site.price, site.upkeep),
                "egress": money_text(site.egress) if site.egress else None,
                "blind": site.blind or None,
            }
        ),
    }
