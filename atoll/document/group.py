"""The document of a group."""

from collections.abc import Mapping
from typing import Any

from atoll import hours
from atoll.document.common import changed, driver, dump_driver, dump_request, name_of, request
from atoll.errors import Invalid
from atoll.fields import Fields, compact
from atoll.group import Group, GroupKind, HotTime, Pools, ScaleDown, Size
from atoll.hours import Hours
from atoll.slots import Request


def group(document: Mapping[str, Any]) -> Group:
    """Return the group of a document: elastic when it names a `provider`, else fixed.

    `name` is required; `site` is the provider's name, or the group's own, where none is given.
    """
    doc = Fields(document, "group", "kind")
    name, provider = name_of(doc, "name", "group"), name_of(doc, "provider", "provider", required=False)
    if not provider:
        doc.refuse(
            ("shapes", "spot", "size", "pools", "scale_down", "boot", "lease", "max_life"),
            f"group {name!r} has no provider: nobody could make machines for it",
            "add `provider: NAME`, or remove this key: agents join a fixed group with a join token",
        )
    plain = Group(name=name, site=name)
    result = Group(
        name=name,
        site=name_of(doc, "site", "site", required=False) or provider or name,
        kind=GroupKind.ELASTIC if provider else GroupKind.FIXED,
        provider=provider,
        shapes=doc.texts("shapes"),
        spot=doc.flag("spot", None),
        size=_size(doc.section("size")),
        pools=_pools(doc.section("pools")),
        hours=_hours(doc),
        driver=driver(doc),
        scale_down=_scale_down(doc.section("scale_down")),
        boot_s=doc.seconds("boot", plain.boot_s, low=1),
        lease_s=doc.seconds("lease", plain.lease_s, low=1),
        max_life_s=doc.seconds("max_life", plain.max_life_s, low=1),
        labels=_tags(doc),
    )
    doc.done()
    return result


def dump_group(group: Group) -> dict[str, Any]:
    """Return the document of a group: of an elastic one its bounds always, the rest where not the default."""
    plain = Group(name=group.name, site=group.site)
    document: dict[str, Any] = {"name": group.name, "site": group.site}
    if group.kind is GroupKind.ELASTIC:
        document |= {"provider": group.provider, "size": {"min": group.size.min, "max": group.size.max}}
    pools = group.pools
    plain_hot = pools.hot_count == 0 and pools.hot == Request()
    hot = {} if plain_hot else {"count": pools.hot_count, **dump_request(pools.hot)}
    hot |= compact(
        {
            "times": [{"hours": each.hours.text, "count": each.count} for each in pools.hot_times],
            "predict": pools.predict or None,
        }
    )
    return document | compact(
        {
            "shapes": list(group.shapes),
            "spot": group.spot,
            "pools": compact({"hot": hot, "cold": {"count": pools.cold} if pools.cold else {}}),
            "scale_down": compact(
                {
                    "idle": changed(group.scale_down.idle_s, plain.scale_down.idle_s),
                    "cooldown": changed(group.scale_down.cooldown_s, plain.scale_down.cooldown_s),
                    "consolidate": group.scale_down.consolidate or None,
                }
            ),
            "boot": changed(group.boot_s, plain.boot_s),
            "lease": changed(group.lease_s, plain.lease_s),
            "max_life": changed(group.max_life_s, plain.max_life_s),
            "hours": [each.text for each in group.hours],
            "driver": dump_driver(group.driver),
            "labels": dict(group.labels),
        }
    )


def _size(doc: Fields) -> Size:
    plain = Size()
    low = doc.integer("min", plain.min, low=0, high=100_000)
    high = doc.integer("max", max(plain.max, low), low=0, high=100_000)
    doc.done()
    if high < low:
        raise Invalid(f"{doc.path}.max is {high}, below min {low}", hint="max must be at least min")
    return Size(min=low, max=high)


def _pools(doc: Fields) -> Pools:
    hot, cold = doc.section("hot"), doc.section("cold")
    pools = Pools(
        hot_count=hot.integer("count", 0, low=0, high=100_000),
        hot_times=_hot_times(hot),
        predict=bool(hot.flag("predict", False)),
        hot=request(hot, Request()),
        cold=cold.integer("count", 0, low=0, high=100_000),
    )
    cold.done()
    doc.done()
    return pools


def _hot_times(hot: Fields) -> tuple[HotTime, ...]:
    listed = hot.raw("times")
    if listed is None:
        return ()
    if not isinstance(listed, list | tuple):
        raise Invalid(f"{hot.path}.times must be a list", hint="begin each with `- hours: mon-fri 08-19 Asia/Seoul`")
    times = []
    for number, item in enumerate(listed):
        fields = Fields(item, f"{hot.path}.times[{number}]")
        text = fields.text("hours")
        if not text:
            raise fields.missing("hours", "write them like: mon-fri 08-19 Asia/Seoul")
        times.append(HotTime(hours=hours.parse(text), count=fields.integer("count", 0, low=0, high=100_000)))
        fields.done()
    return tuple(times)


def _hours(doc: Fields) -> tuple[Hours, ...]:
    return tuple(hours.parse(text) for text in doc.texts("hours"))


def _scale_down(doc: Fields) -> ScaleDown:
    plain = ScaleDown()
    scale_down = ScaleDown(
        idle_s=doc.seconds("idle", plain.idle_s),
        cooldown_s=doc.seconds("cooldown", plain.cooldown_s),
        consolidate=bool(doc.flag("consolidate", False)),
    )
    doc.done()
    return scale_down


def _tags(doc: Fields) -> dict[str, str]:
    """Return a group's labels, which become tags at its cloud beside our own."""
    labels = doc.texts_by_name("labels")
    for key in labels:
        if key.lower().startswith("atoll-"):
            raise Invalid(
                f"{doc.path}.labels cannot hold {key!r}: names that begin with atoll- mark whose a machine is",
                hint="choose another name",
            )
    return labels
