"""Probes: limits of the agent's own surroundings hold, and a machine without a GPU driver is no error."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.devices import Device
from agent.probe import gpu, machine
from agent.probe.all import facts, probe
from agent.probe.notice import NoticeFile
from agent.probe.pretend import parse
from atoll.errors import Invalid
from atoll.gpus import gpu as promised
from atoll.slots import GIB, MIB, Gpu, Slots

STUB = r"""
#include <string.h>
typedef struct { unsigned long long total, free, used; } Memory;
int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { strncpy(text, "550.54", size); return 0; }
int nvmlSystemGetCudaDriverVersion(int *version) { *version = 12040; return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 3; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    if (index == 1) return 15; /* NVML_ERROR_GPU_IS_LOST */
    *handle = (void *)(unsigned long)(index + 1);
    return 0;
}
int nvmlDeviceGetUUID(void *handle, char *text, unsigned size) {
    strncpy(text, handle == (void *)1 ? "GPU-one" : "GPU-three", size); return 0;
}
int nvmlDeviceGetName(void *handle, char *text, unsigned size) { strncpy(text, "NVIDIA L4", size); return 0; }
int nvmlDeviceGetMemoryInfo(void *handle, Memory *memory) { memory->total = 24ull << 30; return 0; }
const char *nvmlErrorString(int code) { return "GPU is lost"; }
"""


def test_this_machine_has_something() -> None:
    found = machine.slots(Path("/nowhere/at/all"))
    assert found.cpu <= 1000 * (os.cpu_count() or 1)
    assert min(found.cpu, found.memory, found.disk) > 0


@pytest.mark.parametrize("version", [1, 2])
def test_cgroup_limits_of_the_agent_itself_hold(tmp_path: Path, version: int) -> None:
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal:       16777216 kB\nMemFree: 1 kB\n")
    if version == 2:
        (proc / "self" / "cgroup").write_text("0::/outer/inner\n")
        (cgroups / "outer" / "inner").mkdir(parents=True)
        (cgroups / "outer" / "memory.max").write_text(f"{2 * GIB}\n")
        (cgroups / "outer" / "inner" / "memory.max").write_text("max\n")
        (cgroups / "outer" / "inner" / "cpu.max").write_text("50000 100000\n")
    else:
        (proc / "self" / "cgroup").write_text("4:memory:/m\n1:cpu:/c\n9:name=systemd:/x\n")
        for folder, file, value in (
            ("memory/m", "memory.limit_in_bytes", str(2 * GIB)),
            ("cpu/c", "cpu.cfs_quota_us", "50000"),
            ("cpu/c", "cpu.cfs_period_us", "100000"),
        ):
            (cgroups / folder).mkdir(parents=True, exist_ok=True)
            (cgroups / folder / file).write_text(value)
    found = machine.slots(tmp_path, cgroups=cgroups, proc=proc)
    assert (found.cpu, found.memory) == (500, 2 * GIB)


def test_no_driver_is_no_gpu() -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("this machine has an NVIDIA driver")
    assert gpu.devices() == ((), {})


def test_gpus_that_answer_are_found_and_a_lost_one_is_left_out(tmp_path: Path) -> None:
    """Against a stub of the driver's library; a process of its own, because a library is loaded once."""
    source = tmp_path / "nvml.c"
    source.write_text(STUB)
    library = tmp_path / "libnvidia-ml.so.1"
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    except FileNotFoundError:
        pytest.skip("needs a C compiler")
    code = "from agent.probe import gpu; print(gpu.devices())"
    env = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    expected = (
        (Device("GPU-one", "L4", 24 * GIB), Device("GPU-three", "L4", 24 * GIB)),
        {"nvidia_driver": "550.54", "cuda": "12.4"},
    )
    assert done.stdout.strip() == str(expected)


@pytest.mark.parametrize(
    ("product", "shows_mib", "model", "gib"),
    [
        ("Tesla T4", 15360, "T4", 16),
        ("NVIDIA L4", 23034, "L4", 24),
        ("NVIDIA A100-SXM4-40GB", 40960, "A100", 40),
        ("NVIDIA A100 80GB PCIe", 81920, "A100-80GB", 80),
        ("NVIDIA A100-SXM4-80GB", 81251, "A100-80GB", 80),
        ("NVIDIA H100 80GB HBM3", 81559, "H100", 80),
        ("NVIDIA H100 NVL", 95830, "H100-NVL", 94),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 97887, "RTX-PRO-6000", 96),
        ("Tesla V100-SXM2-32GB", 32510, "V100", 32),
    ],
)
def test_a_device_is_what_its_shape_promised(product: str, shows_mib: int, model: str, gib: int) -> None:
    assert gpu.device("GPU-1", product, shows_mib * MIB) == Device("GPU-1", model, gib * GIB)
    assert promised(product, 1, gib * GIB) == Gpu(model, 1000, gib * GIB)


def test_an_unknown_device_is_told_as_it_is() -> None:
    assert gpu.device("GPU-1", "NVIDIA GeForce RTX 4090", 24564 * MIB) == Device("GPU-1", "RTX-4090", 24564 * MIB)
    assert gpu.device("GPU-1", "NVIDIA", GIB).model == "NVIDIA"


def test_pretended_slots() -> None:
    base = Slots(cpu=1000, memory=GIB, disk=5 * GIB)
    slots, gpus = parse("cpu=2, memory=512MiB,gpu=L4:2:24GiB,gpu=T4", base)
    assert slots == Slots(2000, 512 * MIB, 5 * GIB, (Gpu("L4", 2000, 24 * GIB), Gpu("T4", 1000)))
    assert [gpu.uuid for gpu in gpus] == ["GPU-pretended-L4-0", "GPU-pretended-L4-1", "GPU-pretended-T4-0"]
    assert parse("", base) == (base, ())


@pytest.mark.parametrize("text", ["cores=2", "cpu=lots", "memory=4Gigs", "gpu=", "gpu=L4:x", "disk"])
def test_bad_pretended_slots_are_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse(text, Slots())


def test_the_environment_overrides_the_probes(tmp_path: Path) -> None:
    found = probe(tmp_path, {"ATOLL_AGENT_SLOTS": "cpu=3"})
    assert found.capacity.cpu == 3000
    assert found.facts["slots"] == "pretended"
    assert probe(tmp_path, {}).facts.keys() >= facts().keys()


@pytest.mark.parametrize(
    ("text", "notice"),
    [
        ('{"in_s": 120, "message": "spot"}', (120.0, "spot")),
        ("{}", (30.0, "")),
        ("soon\n", (30.0, "soon")),
        ("[1]", (30.0, "[1]")),
    ],
)
def test_a_notice_file(tmp_path: Path, text: str, notice: tuple[float, str]) -> None:
    file = NoticeFile(tmp_path / "notice")
    assert file.check() is None
    (tmp_path / "notice").write_text(text)
    assert file.check() == notice
