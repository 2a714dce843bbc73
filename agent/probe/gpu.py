"""NVIDIA GPUs, through NVML where there is one. A machine without a driver is a machine without GPUs."""

import contextlib
import logging
from typing import Any

from agent.devices import Device

_log = logging.getLogger("atoll.agent.probe")


def devices() -> tuple[tuple[Device, ...], dict[str, str]]:
    """Return the GPUs that answer, and facts (driver and CUDA version). A device that fails is left out."""
    try:
        import pynvml  # type: ignore[import-untyped]
    except ImportError:
        return (), {}
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        if not isinstance(error, pynvml.NVMLError_LibraryNotFound):
            _log.warning("the GPU driver does not answer: %s", error)
        return (), {}
    try:
        return _found(pynvml)
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _found(nvml: Any) -> tuple[tuple[Device, ...], dict[str, str]]:
    facts = {}
    with contextlib.suppress(nvml.NVMLError):
        facts["nvidia_driver"] = _text(nvml.nvmlSystemGetDriverVersion())
    with contextlib.suppress(nvml.NVMLError):
        version = nvml.nvmlSystemGetCudaDriverVersion()
        facts["cuda"] = f"{version // 1000}.{version % 1000 // 10}"
    found = []
    count = 0
    with contextlib.suppress(nvml.NVMLError):
        count = nvml.nvmlDeviceGetCount()
    for index in range(count):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            found.append(
                Device(
                    _text(nvml.nvmlDeviceGetUUID(handle)),
                    model_name(_text(nvml.nvmlDeviceGetName(handle))),
                    int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
                )
            )
        except nvml.NVMLError as error:
            _log.warning("GPU %d is left out: %s", index, error)
    return tuple(found), facts


def model_name(product: str) -> str:
    """Return the short model of a product name: `NVIDIA H100 80GB HBM3` is `H100`, `Tesla T4` is `T4`."""
    words = [word for word in product.split() if word not in ("NVIDIA", "Tesla", "Quadro")]
    if words[:1] == ["GeForce"] or words[:1] == ["RTX"]:
        return "-".join(word for word in words if word != "GeForce") or product
    return words[0].split("-")[0] if words else product


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
