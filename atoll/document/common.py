"""What several documents have: names, sizes, and how amounts are written."""

from collections.abc import Mapping
from typing import Any

from atoll import duration
from atoll.errors import Invalid
from atoll.fields import Fields, compact
from atoll.ids import check_name
from atoll.slots import GIB, KIB, MIB, TIB, GpuRequest, Request


def name_of(doc: Fields, key: str, noun: str, *, required: bool = True) -> str:
    """Return a name, empty when absent and not `required`; raise `Invalid` for one that is none."""
    name = doc.text(key)
    if not name and required:
        raise doc.missing(key, f"give the {noun} a name")
    return check_name(name, noun) if name else ""


def request(doc: Fields, default: Request) -> Request:
    """Return the sizes of a member; what is absent is as in `default`."""
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
    least, most = _range(gpu)
    request = GpuRequest(
        milli=gpu.milli("count", 1000),
        models=gpu.texts("name"),
        memory=least,
        memory_max=most,
        driver=driver(gpu),
    )
    gpu.done()
    return request


def _range(gpu: Fields) -> tuple[int, int]:
    """Return the least and most memory of a device (0: no limit) of `24GiB` or `{min: 24GiB, max: 48GiB}`."""
    if not isinstance(gpu.raw("memory"), Mapping):
        return gpu.bytes("memory", 0), 0
    memory = gpu.section("memory")
    least, most = memory.bytes("min", 0), memory.bytes("max", 0)
    memory.done()
    if most and most < least:
        raise Invalid(f"{memory.path}.max is below min", hint="max must be at least min")
    return least, most


def driver(doc: Fields) -> tuple[int, ...]:
    """Return a driver's version of `550` or `"550.54.15"` as numbers, empty when absent."""
    text = doc.text("driver").strip()
    parts = text.split(".") if text else []
    if not all(part.isdigit() and len(part) < 10 for part in parts):
        raise Invalid(f"{doc.path}.driver cannot be {text!r}", hint='write it like 550 or "550.54.15"')
    return tuple(int(part) for part in parts)


def dump_driver(version: tuple[int, ...]) -> str:
    """Return a driver's version as text, empty for none."""
    return ".".join(map(str, version))


def dump_request(request: Request) -> dict[str, Any]:
    """Return the document of a member's sizes."""
    gpu = request.gpu
    document: dict[str, Any] = {"cpu": _plain(request.cpu), "memory": bytes_text(request.memory)}
    if request.disk:
        document["disk"] = bytes_text(request.disk)
    if gpu != GpuRequest():
        document["gpu"] = {
            "count": _plain(gpu.milli),
            **compact(
                {"name": list(gpu.models), "memory": _dump_range(gpu), "driver": dump_driver(gpu.driver)},
            ),
        }
    return document


def _dump_range(gpu: GpuRequest) -> str | int | dict[str, Any]:
    if gpu.memory_max:
        least = bytes_text(gpu.memory) if gpu.memory else ""
        return compact({"min": least, "max": bytes_text(gpu.memory_max)})
    return bytes_text(gpu.memory) if gpu.memory else ""


def changed(seconds: float | None, default: float | None) -> str | None:
    """Return a duration as text, None when it is the default."""
    return None if seconds is None or seconds == default else duration.text(seconds)


def _plain(milli: int) -> int | float:
    return milli // 1000 if milli % 1000 == 0 else milli / 1000


def bytes_text(amount: int) -> str | int:
    """Return bytes in the largest unit that they are a whole number of."""
    for unit, size in (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if amount and amount % size == 0:
            return f"{amount // size}{unit}"
    return amount
