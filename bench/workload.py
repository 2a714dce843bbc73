"""Requests, machines and shapes for the benchmarks: from public traces and price lists, else synthetic."""

import csv
import random
from dataclasses import dataclass

from atoll.instance import Shape
from atoll.money import micros
from atoll.slots import GIB, MIB, Gpu, GpuRequest, Request, Slots
from bench.rows import DATA

_PODS = DATA / "traces" / "openb_pods_gpuspec33.csv"
_NODES = DATA / "traces" / "openb_nodes.csv"
_PRICES = DATA / "prices" / "aws_us_east_1.csv"
_GPU_PRICE = {"T4": 0.35, "P100": 0.6, "V100M16": 1.1, "V100M32": 1.4, "A10": 0.8, "G2": 0.9, "G3": 1.6}
"""Pretend USD an hour per device: the trace has none. G2 and G3 are undisclosed models."""


@dataclass(frozen=True)
class Machine:
    """A kind of machine with a price in micro-units an hour."""

    slots: Slots
    price: int


def requests(*, models: bool) -> tuple[list[Request], str]:
    """Return request shapes and where they are from; with `models`, those of the trace keep their GPU models."""
    if not _PODS.exists():
        return _synthetic_requests(), "request shapes: synthetic mix (no trace beside the checkout)"
    found = []
    with _PODS.open(newline="", encoding="utf-8") as lines:
        for pod in csv.DictReader(lines):
            milli = int(pod["gpu_milli"] or 0) if int(pod["num_gpu"]) == 1 else int(pod["num_gpu"]) * 1000
            named = tuple(sorted(set(pod["gpu_spec"].split("|")))) if models and pod["gpu_spec"] and milli else ()
            found.append(Request(int(pod["cpu_milli"]), int(pod["memory_mib"]) * MIB, 0, GpuRequest(milli, named)))
    return found, f"request shapes: {len(found)} pods of the Alibaba openb trace"


def machines() -> tuple[list[Machine], str]:
    """Return machines (one entry a node of the trace) and where they are from; prices are pretend."""
    if not _NODES.exists():
        shapes = [(32, 128, "", 0), (64, 256, "", 0), (96, 384, "T4", 4), (96, 512, "G2", 8), (64, 256, "V100M32", 8)]
        return [_machine(*shape) for shape in shapes], "machines: synthetic mix (no trace beside the checkout)"
    with _NODES.open(newline="", encoding="utf-8") as lines:
        found = [
            _machine(int(n["cpu_milli"]) / 1000, int(n["memory_mib"]) / 1024, n["model"], int(n["gpu"]))
            for n in csv.DictReader(lines)
        ]
    return found, f"machines: drawn from {len(found)} nodes of the openb trace, with pretend prices"


def shapes() -> tuple[list[Shape], str]:
    """Return launchable shapes and where they are from."""
    if not _PRICES.exists():
        made = [_shape(f"c{n}", n, n * ratio, "", 0, 0.04 * n + 0.004 * n * ratio) for n in (2, 4, 8, 16, 32, 64)
                for ratio in (2, 4, 8)]  # fmt: skip
        made += [_shape(f"g{n}", n * 8, n * 32, "L4", n, 0.8 * n) for n in (1, 2, 4, 8)]
        return made, f"shapes: {len(made)} synthetic ones (no price list beside the checkout)"
    with _PRICES.open(newline="", encoding="utf-8") as lines:
        found = [
            _shape(
                line["instance_type"],
                float(line["vcpus"]),
                float(line["memory_gib"]),
                line["gpu_model"] or "gpu",
                float(line["gpus"] or 0),
                float(line["on_demand_usd_per_hour"]),
            )
            for line in csv.DictReader(lines)
        ]
    return found, f"shapes: {len(found)} EC2 shapes, us-east-1 on-demand prices"


def _synthetic_requests() -> list[Request]:
    chance = random.Random(1)
    mix = []
    for _ in range(2000):
        gpu = chance.choice((0, 0, 250, 500, 1000, 1000, 1000, 2000, 8000))
        cpu = chance.choice((1000, 2000, 4000, 8000, 12000)) * max(1, gpu // 2000)
        mix.append(Request(cpu, cpu // 1000 * chance.choice((1, 2, 4, 8)) * GIB, 0, GpuRequest(gpu)))
    return mix


def _machine(cpu: float, memory: float, model: str, count: int) -> Machine:
    gpu = (Gpu(model, count * 1000, 16 * GIB),) if count else ()
    price = 0.03 * cpu + 0.003 * memory + count * _GPU_PRICE.get(model, 1.0)
    return Machine(Slots(round(cpu * 1000), round(memory * GIB), 0, gpu), micros(price))


def _shape(name: str, cpu: float, memory: float, model: str, count: float, price: float) -> Shape:
    gpu = (Gpu(model, round(count * 1000)),) if count else ()
    return Shape(
        provider="aws",
        name=name,
        zone="us-east-1",
        slots=Slots(round(cpu * 1000), round(memory * GIB), 0, gpu),
        price=micros(price),
    )
