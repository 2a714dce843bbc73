"""NVIDIA GPUs, through NVML where there is one. A machine without a driver is a machine without GPUs."""

import contextlib
import logging
from typing import Any

from agent.devices import Device
from atoll.gpus import canonical, nominal

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
            name, memory = _text(nvml.nvmlDeviceGetName(handle)), int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
            found.append(device(_text(nvml.nvmlDeviceGetUUID(handle)), name, memory))
        except nvml.NVMLError as error:
            _log.warning("GPU %d is left out: %s", index, error)
    return tuple(found), facts


def device(uuid: str, product: str, memory: int) -> Device:
    """Return a GPU under the model and with the memory that shapes have: `Tesla T4` of 15360 MiB is a `T4` of 16 GiB.

    So a launch for `--gpu-memory 16GiB` has an agent that the session fits on.
    """
    model = canonical(product, memory)
    return Device(uuid, model, nominal(model, memory))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
