"""Checks of a price list before it is believed: what cannot be a price becomes unpriced, with the reason. Pure.

Unpriced is never cheap: a machine with the wrong price would win every comparison, one without none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from atoll.gpus import MEMORY, canonical
from atoll.money import micros, text
from atoll.price import Price, PriceList, Remark
from atoll.slots import GIB

JUMP = 5.0
"""A price that changed by more than this factor since the list before is doubted."""
SPOT_ABOVE = 1.05
"""Spot that costs more than this many times on-demand is pointed out: the cheaper way is the other one."""
CPU_SHARE = 0.75
"""A GPU machine costs more than this part of what its cores cost without devices.

Over the 742 shapes of one region (2026), the lowest was 1.00 of the cheapest quarter's price a core.
"""
LEAST_PER_DEVICE = micros(0.01)
"""Less than this an hour for a device is a mistake, whatever the currency."""
SPOT_PART = 0.05
"""Spot costs more than this part of on-demand: the large clouds announce discounts of up to nine tenths."""
MEMORY_MORE = 1.3
"""A device has at most this many times its model's memory: more is a sum over devices. Slices have less."""
_LARGER: Mapping[str, int] = {"V100": 32 * GIB, "GH200": 144 * GIB}  # models that are sold with more, too

_Key = tuple[str, str, bool]


def sift(listed: PriceList, before: PriceList | None = None, *, accept_jumps: bool = False) -> PriceList:
    """Return the list with its doubtful rows taken out or remarked upon; `before` is the one it replaces.

    A fall to less than a fifth is dropped until a person accepts it (`accept_jumps`), since a wrong cheap
    price does harm; a rise as large is used, and remarked upon. Of repeated rows the last counts.
    """
    rows = {price.key: price for price in listed.prices}
    known = {} if accept_jumps or before is None or before.currency != listed.currency else _known(before)
    core = _price_of_a_core(list(rows.values()))
    plain = {(p.shape, p.zone): p.amount for p in rows.values() if not p.spot}
    remarks = list(listed.remarks)
    kept = []
    for price in rows.values():
        if why := _wrong(price) or _too_cheap_for_gpus(price, core) or _too_cheap_for_spot(price, plain):
            remarks.append(Remark(price=price, reason=why, before=known.get(price.key, 0)))
            continue
        jump = _jump(price, known.get(price.key, 0))
        if jump:
            remarks.append(jump)
        if jump is None or not jump.dropped:
            kept.append(price)
    remarks += _dear_spot(kept, plain)
    return replace(listed, prices=tuple(kept), remarks=tuple(remarks))


def _known(before: PriceList) -> Mapping[_Key, int]:
    """Return the last believed amounts: a row that was dropped for its fall still counts as before."""
    return {r.price.key: r.before for r in before.remarks if r.before} | {p.key: p.amount for p in before.prices}


def _wrong(price: Price) -> str:
    if price.amount <= 0:
        return "is zero or negative: that is no price"
    model = canonical(price.gpu_model, price.gpu_memory)
    most = _LARGER.get(model) or MEMORY.get(model)
    if price.gpus and most and price.gpu_memory > MEMORY_MORE * most:
        return f"says {price.gpu_memory / GIB:.0f} GiB a device; {model} has {most / GIB:.0f} GiB"
    return ""


def _price_of_a_core(rows: Sequence[Price]) -> float:
    """Return what a thousandth of a core costs in the cheapest quarter of machines without devices; 0: unknown."""
    plain = sorted(p.amount / p.cpu for p in rows if not p.spot and p.cpu and not p.gpus and p.amount > 0)
    return plain[len(plain) // 4] if plain else 0.0


def _too_cheap_for_gpus(price: Price, core: float) -> str:
    if not price.gpus:
        return ""
    if price.amount < price.gpus * LEAST_PER_DEVICE:
        return f"{text(price.amount, '').strip()} an hour is no price of {price.gpus} x {price.gpu_model or 'GPU'}"
    if not price.spot and price.amount < core * price.cpu * CPU_SHARE:
        return f"costs less than its {price.cpu / 1000:g} cores would without GPUs: the GPUs are not in the price"
    return ""


def _on_demand(price: Price, plain: Mapping[tuple[str, str], int]) -> int:
    return plain.get((price.shape, price.zone)) or plain.get((price.shape, "")) or 0


def _too_cheap_for_spot(price: Price, plain: Mapping[tuple[str, str], int]) -> str:
    usual = _on_demand(price, plain)
    if not price.spot or price.amount >= usual * SPOT_PART:
        return ""
    return f"spot at less than a twentieth of on-demand, which is {text(usual, '').strip()}"


def _jump(price: Price, before: int) -> Remark | None:
    if not before or before / JUMP <= price.amount <= before * JUMP:
        return None
    went = f"{text(before, '').strip()} to {text(price.amount, '').strip()}"
    if price.amount > before:
        return Remark(price=price, reason=f"rose from {went}", dropped=False, before=before)
    return Remark(price=price, reason=f"fell from {went}: not used before somebody accepts it", before=before)


def _dear_spot(kept: Sequence[Price], plain: Mapping[tuple[str, str], int]) -> list[Remark]:
    return [
        Remark(price=price, reason="spot costs more than on demand", dropped=False)
        for price in kept
        if price.spot and price.amount > _on_demand(price, plain) * SPOT_ABOVE > 0
    ]
