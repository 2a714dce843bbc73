"""A `sim` provider's settings: what it sells, where, how slowly it boots, and which faults it has."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from atoll.errors import Invalid
from atoll.fields import Fields
from atoll.slots import GIB, Gpu, Slots
from atoll.suggest import hint
from providers.sim.catalogue import PRODUCTS, Product
from providers.sim.faults import Fault, parse_faults


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Checked settings. `boot_s` is from create to the boot script's start, `latency_s` that of every call.

    `limits` is what the account may have at most: of `cpu` cores, `gpu` devices, `instances`.
    """

    products: tuple[Product, ...] = tuple(PRODUCTS.values())
    zones: tuple[str, ...] = ("sim-a",)
    boot_s: float = 2.0
    latency_s: float = 0.0
    faults: tuple[Fault, ...] = ()
    limits: Mapping[str, int] = field(default_factory=dict)


def parse(document: Mapping[str, object]) -> Settings:
    """Return the settings of a provider's document; raise `Invalid` with a did-you-mean where it is wrong.

    `shapes` is a list of names of the catalogue or own ones: `{name: tiny, cpu: 1, memory: 2GiB,
    price: 0.02, spot_price: 0.01}`, with `gpu: {model: L4, count: 1, memory: 24GiB}` where there are any.
    """
    fields = Fields(document, "provider.settings")
    shapes = fields.raw("shapes")
    settings = Settings(
        products=tuple(PRODUCTS.values()) if shapes is None else _products(shapes),
        zones=fields.texts("zones") or ("sim-a",),
        boot_s=fields.seconds("boot_s", 2.0),
        latency_s=fields.seconds("latency_s", 0.0),
        faults=parse_faults(fields.raw("faults"), "provider.settings.faults"),
        limits=_limits(fields.section("limits")),
    )
    fields.done()
    return settings


def _limits(fields: Fields) -> dict[str, int]:
    given = {name: fields.raw(name) for name in ("cpu", "gpu", "instances")}
    limits = {name: fields.integer(name, 0, low=0, high=10**9) for name, value in given.items() if value is not None}
    fields.done()
    return limits


def _products(listed: object) -> tuple[Product, ...]:
    if not isinstance(listed, list | tuple) or not listed:
        raise Invalid("provider.settings.shapes must be a list of shapes", hint=f"names: {', '.join(PRODUCTS)}")
    products = [_product(item, n) for n, item in enumerate(listed)]
    names = [product.name for product in products]
    twice = next((name for name in names if names.count(name) > 1), "")
    if twice:
        raise Invalid(f"provider.settings.shapes names {twice!r} twice", hint="give each shape a name of its own")
    return tuple(products)


def _product(item: object, number: int) -> Product:
    path = f"provider.settings.shapes[{number}]"
    if isinstance(item, str):
        if item not in PRODUCTS:
            raise Invalid(
                f"{path}: there is no shape {item!r}", hint=hint(item, PRODUCTS, f"shapes: {', '.join(PRODUCTS)}")
            )
        return PRODUCTS[item]
    fields = Fields(item, path)
    name = fields.text("name")
    if not name:
        raise Invalid(f"{path} has no name", hint="write name: below it")
    gpu = fields.section("gpu") if fields.raw("gpu") is not None else None
    product = Product(
        name=name,
        slots=Slots(
            fields.milli("cpu", 1000),
            fields.bytes("memory", 2 * GIB),
            fields.bytes("disk", 20 * GIB),
            (Gpu(gpu.text("model"), gpu.milli("count", 1000), gpu.bytes("memory", 0)),) if gpu else (),
        ),
        price=fields.money("price", None),
        spot_price=fields.money("spot_price", None),
    )
    fields.done()
    if gpu:
        gpu.done()
    if product.price is None and product.spot_price is None:
        raise Invalid(f"{path} has no price", hint="write price: or spot_price:, an amount an hour like 0.048")
    return product
