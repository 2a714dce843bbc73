"""The document form of sessions, groups, providers and sites: what YAML files hold and the REST API takes.

Every key is optional unless said; an unknown key is an error with "did you mean". cpu is in cores (`0.5`,
`"500m"`), memory and disk are `"24GiB"` or bytes, durations `"10m"` or seconds, prices units an hour.
What `dump_…` writes, the reader of the same noun reads back as an equal object.
"""

from collections.abc import Callable, Mapping
from typing import Any

from atoll import duration
from atoll.errors import Invalid
from atoll.fields import Fields, compact, money_text
from atoll.group import Group, GroupKind, Orphans, Pools, Provider, ScaleDown, Size
from atoll.ids import check_name
from atoll.pricing import dump_price_rules, dump_site_price, price_rules, site_price
from atoll.session import CostLimits, Lifetime, Placement, Retry, SessionSpec, SessionType
from atoll.site import Site
from atoll.slots import GIB, KIB, MIB, TIB, GpuRequest, Request
from atoll.suggest import hint

MAX_NODES = 1024
"""Members of one gang at most."""
MAX_STDIN = 512 * KIB
"""Characters of standard input that a document may carry."""
MAX_APP_NAME = 20
"""With `--` and a session's name of 40 characters, an app's host name stays within DNS's 63."""


def session_spec(document: Mapping[str, Any]) -> SessionSpec:
    """Return the session a document asks for; raise `Invalid` naming the key at fault. `command` is required."""
    doc = Fields(document, "session", "kind")
    spec = SessionSpec(
        command=_command(doc),
        name=_name(doc, "name", "session", required=False),
        type=SessionType(doc.choice("type", [kind.value for kind in SessionType], SessionType.BATCH.value)),
        runtime=doc.choice("runtime", ["process"], "process"),
        workdir=doc.text("workdir"),
        env=doc.texts_by_name("env"),
        stdin=_stdin(doc),
        resources=_request(doc.section("resources"), Request()),
        nodes=doc.integer("nodes", 1, low=1, high=MAX_NODES),
        placement=_placement(doc.section("placement")),
        cost=_cost(doc.section("cost")),
        lifetime=_lifetime(doc.section("lifetime")),
        retry=_retry(doc.section("retry")),
        apps=_apps(doc),
        priority=doc.integer("priority", 0, low=-1000, high=1000),
        labels=doc.texts_by_name("labels"),
    )
    doc.done()
    for key in spec.env:
        if not key or "=" in key or "\0" in key:
            raise Invalid(f"session.env has the name {key!r}, which no process can have", hint="write NAME: value")
    return spec


def dump_session_spec(spec: SessionSpec) -> dict[str, Any]:
    """Return the document of a session: command and resources always, the rest where it is not the default."""
    plain = SessionSpec(command=())
    return {
        "command": list(spec.command),
        "resources": _dump_request(spec.resources),
        **compact(
            {
                "name": spec.name,
                "type": spec.type.value if spec.type != plain.type else "",
                "runtime": spec.runtime if spec.runtime != plain.runtime else "",
                "workdir": spec.workdir,
                "env": dict(spec.env),
                "stdin": spec.stdin,
                "nodes": spec.nodes if spec.nodes != 1 else None,
                "placement": compact(
                    {"sites": list(spec.placement.sites), "groups": list(spec.placement.groups)},
                ),
                "cost": compact(
                    {
                        "max_price": None if spec.cost.max_price is None else money_text(spec.cost.max_price),
                        "spot": None if spec.cost.spot else False,
                    }
                ),
                "lifetime": _dump_lifetime(spec.lifetime, plain.lifetime),
                "retry": compact(
                    {
                        "max": spec.retry.max if spec.retry.max != plain.retry.max else None,
                        "lost": spec.retry.lost or None,
                        "lease": _changed(spec.retry.lease, plain.retry.lease),
                    }
                ),
                "apps": dict(spec.apps),
                "priority": spec.priority or None,
                "labels": dict(spec.labels),
            }
        ),
    }


def group(document: Mapping[str, Any]) -> Group:
    """Return the group of a document: elastic when it names a `provider`, else fixed.

    `name` is required; `site` is the provider's name, or the group's own, where none is given.
    """
    doc = Fields(document, "group", "kind")
    name, provider = _name(doc, "name", "group"), _name(doc, "provider", "provider", required=False)
    if not provider:
        doc.refuse(
            ("shapes", "spot", "size", "pools", "scale_down", "boot", "lease", "max_life"),
            f"group {name!r} has no provider: nobody could make machines for it",
            "add `provider: NAME`, or remove this key: agents join a fixed group with a join token",
        )
    plain = Group(name=name, site=name)
    result = Group(
        name=name,
        site=_name(doc, "site", "site", required=False) or provider or name,
        kind=GroupKind.ELASTIC if provider else GroupKind.FIXED,
        provider=provider,
        shapes=doc.texts("shapes"),
        spot=doc.flag("spot", None),
        size=_size(doc.section("size")),
        pools=_pools(doc.section("pools")),
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
    hot = {} if plain_hot else {"count": pools.hot_count, **_dump_request(pools.hot)}
    return document | compact(
        {
            "shapes": list(group.shapes),
            "spot": group.spot,
            "pools": compact({"hot": hot, "cold": {"count": pools.cold} if pools.cold else {}}),
            "scale_down": compact(
                {
                    "idle": _changed(group.scale_down.idle_s, plain.scale_down.idle_s),
                    "cooldown": _changed(group.scale_down.cooldown_s, plain.scale_down.cooldown_s),
                }
            ),
            "boot": _changed(group.boot_s, plain.boot_s),
            "lease": _changed(group.lease_s, plain.lease_s),
            "max_life": _changed(group.max_life_s, plain.max_life_s),
            "labels": dict(group.labels),
        }
    )


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
    name = _name(doc, "name", "provider", required=False) or check_name(driver, "provider")
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
    """Return the site of a document: `name` (required), `labels`, `price` (of an hour of a whole agent).

    `price` is units an hour, or what they follow from: see `atoll.pricing.site_price`.
    """
    doc = Fields(document, "site", "kind")
    price, upkeep = site_price(doc)
    result = Site(name=_name(doc, "name", "site"), labels=doc.texts_by_name("labels"), price=price, upkeep=upkeep)
    doc.done()
    return result


def dump_site(site: Site) -> dict[str, Any]:
    """Return the document of a site."""
    return {
        "name": site.name,
        **compact({"labels": dict(site.labels), "price": dump_site_price(site.price, site.upkeep)}),
    }


READERS: Mapping[str, Callable[[Mapping[str, Any]], SessionSpec | Group | Provider | Site]] = {
    "session": session_spec,
    "group": group,
    "provider": provider,
    "site": site,
}
"""Reader of a document by its `kind`."""


def kind_of(document: object) -> str:
    """Return the `kind` of a document for `apply`; raise `Invalid` when it has none or an unknown one."""
    if not isinstance(document, Mapping):
        raise Invalid("a document must be a mapping of keys to values", hint="begin it with `kind: session`")
    kind = document.get("kind")
    if kind is None:
        raise Invalid("the document has no `kind`", hint=f"add `kind:` with one of {', '.join(READERS)}")
    if kind not in READERS:
        raise Invalid(f"unknown kind {kind!r}", hint=hint(str(kind), READERS, f"kinds: {', '.join(READERS)}"))
    return str(kind)


def _command(doc: Fields) -> tuple[str, ...]:
    value = doc.raw("command")
    if isinstance(value, str) and value.strip():
        command: tuple[str, ...] = ("/bin/sh", "-c", value)
    else:
        command = doc.texts("command")
    if not command or not command[0]:
        raise doc.missing("command", 'write it like ["python3", "train.py"] or "python3 train.py"')
    if any("\0" in word for word in command):
        raise Invalid("session.command holds a NUL character", hint="no program can be given one")
    return command


def _stdin(doc: Fields) -> str:
    text = doc.text("stdin")
    if len(text) > MAX_STDIN:
        raise Invalid(f"session.stdin is longer than {MAX_STDIN // KIB} KiB", hint="let the program read a file")
    return text


def _name(doc: Fields, key: str, noun: str, *, required: bool = True) -> str:
    name = doc.text(key)
    if not name and required:
        raise doc.missing(key, f"give the {noun} a name")
    return check_name(name, noun) if name else ""


def _request(doc: Fields, default: Request) -> Request:
    request = Request(
        cpu=doc.milli("cpu", default.cpu),
        memory=doc.bytes("memory", default.memory),
        disk=doc.bytes("disk", default.disk),
        gpu=_gpu(doc),
    )
    doc.done()
    if request.cpu < 1:
        raise Invalid(f"{doc.path}.cpu must be above 0", hint="0.001 is the least")
    return request


def _gpu(doc: Fields) -> GpuRequest:
    value = doc.raw("gpu")
    if value is None or isinstance(value, int | float | str):
        return GpuRequest(milli=doc.milli("gpu", 0))
    gpu = doc.section("gpu")
    request = GpuRequest(milli=gpu.milli("count", 1000), models=gpu.texts("name"), memory=gpu.bytes("memory", 0))
    gpu.done()
    return request


def _dump_request(request: Request) -> dict[str, Any]:
    gpu = request.gpu
    document: dict[str, Any] = {"cpu": _plain(request.cpu), "memory": _bytes_text(request.memory)}
    if request.disk:
        document["disk"] = _bytes_text(request.disk)
    if gpu != GpuRequest():
        document["gpu"] = {
            "count": _plain(gpu.milli),
            **compact({"name": list(gpu.models), "memory": _bytes_text(gpu.memory) if gpu.memory else ""}),
        }
    return document


def _placement(doc: Fields) -> Placement:
    placement = Placement(sites=doc.texts("sites"), groups=doc.texts("groups"))
    doc.done()
    return placement


def _cost(doc: Fields) -> CostLimits:
    limits = CostLimits(max_price=doc.money("max_price", None), spot=bool(doc.flag("spot", True)))
    doc.done()
    return limits


def _lifetime(doc: Fields) -> Lifetime:
    plain = Lifetime()
    lifetime = Lifetime(
        max=doc.optional_seconds("max", low=0.001),
        protect=bool(doc.flag("protect", plain.protect)),
        grace=doc.seconds("grace", plain.grace, high=3600),
        expected=doc.seconds("expected", plain.expected, low=0.001),
        max_wait=doc.optional_seconds("max_wait", low=0.001),
    )
    doc.done()
    return lifetime


def _dump_lifetime(lifetime: Lifetime, plain: Lifetime) -> dict[str, Any]:
    return compact(
        {
            "max": _changed(lifetime.max, None),
            "protect": lifetime.protect or None,
            "grace": _changed(lifetime.grace, plain.grace),
            "expected": _changed(lifetime.expected, plain.expected),
            "max_wait": _changed(lifetime.max_wait, None),
        }
    )


def _retry(doc: Fields) -> Retry:
    plain = Retry()
    retry = Retry(
        max=doc.integer("max", plain.max, low=0, high=1000),
        lost=bool(doc.flag("lost", plain.lost)),
        lease=doc.seconds("lease", plain.lease, low=1),
    )
    doc.done()
    return retry


def _apps(doc: Fields) -> dict[str, int]:
    apps = doc.ports("apps")
    for name in apps:
        check_name(name, "app")
        if len(name) > MAX_APP_NAME:
            raise Invalid(
                f"app name {name!r} is longer than {MAX_APP_NAME} characters",
                hint="it becomes part of a host name, <app>--<session>",
            )
    return apps


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
        hot=_request(hot, Request()),
        cold=cold.integer("count", 0, low=0, high=100_000),
    )
    cold.done()
    doc.done()
    return pools


def _scale_down(doc: Fields) -> ScaleDown:
    plain = ScaleDown()
    scale_down = ScaleDown(
        idle_s=doc.seconds("idle", plain.idle_s), cooldown_s=doc.seconds("cooldown", plain.cooldown_s)
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


def _changed(seconds: float | None, default: float | None) -> str | None:
    return None if seconds is None or seconds == default else duration.text(seconds)


def _plain(milli: int) -> int | float:
    return milli // 1000 if milli % 1000 == 0 else milli / 1000


def _bytes_text(amount: int) -> str | int:
    for unit, size in (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if amount and amount % size == 0:
            return f"{amount // size}{unit}"
    return amount
