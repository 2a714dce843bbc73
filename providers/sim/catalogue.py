"""What the pretend cloud sells: shapes with on-demand and spot prices, close to what real clouds ask."""

from dataclasses import dataclass

from atoll.instance import Shape
from atoll.money import micros
from atoll.slots import GIB, Gpu, Slots

CATALOGUE = "sim 2026-11"
"""Name and date of the price list; each launch records it (I16)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A machine type: its slots, and its prices an hour in micro-units (None: not sold that way)."""

    name: str
    slots: Slots
    price: int | None
    spot_price: int | None = None


def _cpu(name: str, cores: int, gib: int, price: float, spot: float) -> Product:
    return Product(
        name=name,
        slots=Slots(cores * 1000, gib * GIB, cores * 20 * GIB),
        price=micros(price),
        spot_price=micros(spot),
    )


PRODUCTS: dict[str, Product] = {
    product.name: product
    for product in (
        _cpu("cpu-1", 1, 2, 0.024, 0.009),
        _cpu("cpu-2", 2, 4, 0.048, 0.018),
        _cpu("cpu-4", 4, 16, 0.168, 0.062),
        _cpu("cpu-8", 8, 32, 0.336, 0.121),
        Product(
            name="gpu-l4",
            slots=Slots(4000, 16 * GIB, 100 * GIB, (Gpu("L4", 1000, 24 * GIB),)),
            price=micros(0.7053),
            spot_price=micros(0.2821),
        ),
        Product(
            name="gpu-8xh100",
            slots=Slots(192_000, 2048 * GIB, 1000 * GIB, (Gpu("H100", 8000, 80 * GIB),)),
            price=micros(55.04),
            spot_price=micros(24.77),
        ),
    )
}
"""Sold unless a provider's settings say otherwise."""


def offered(products: list[Product], zones: tuple[str, ...], provider: str, start_s: float) -> list[Shape]:
    """Return one shape for each product, zone and way of paying."""
    return [
        Shape(
            provider=provider,
            name=product.name,
            zone=zone,
            slots=product.slots,
            price=price,
            spot=spot,
            start_s=start_s,
            catalogue=CATALOGUE,
        )
        for product in products
        for zone in zones
        for spot, price in ((False, product.price), (True, product.spot_price))
        if price is not None
    ]
