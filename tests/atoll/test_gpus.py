import pytest

from atoll.gpus import MEMORY, canonical, gpu, nominal
from atoll.slots import GIB, MIB, Gpu


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("T4", "T4"),
        ("T4g", "T4G"),
        ("nvidia-tesla-t4", "T4"),
        ("nvidia-l4", "L4"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 NVL", "H100-NVL"),
        ("nvidia-h100-mega-80gb", "H100"),
        ("nvidia-h200-141gb", "H200"),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("RTX PRO Server 6000", "RTX-PRO-6000"),
        ("nvidia-rtx-pro-6000", "RTX-PRO-6000"),
        ("RTX 6000 Ada Generation", "RTX-6000-Ada"),
        ("Gaudi HL-205", "Gaudi-HL-205"),
        ("AMD Instinct MI300X", "MI300X"),
        ("NVIDIA Z9 Max", "Z9-Max"),
        ("NVIDIA", "NVIDIA"),
    ],
)
def test_every_clouds_name_becomes_the_short_one(name: str, model: str) -> None:
    assert canonical(name) == model


@pytest.mark.parametrize("model", MEMORY)
def test_short_names_stand_for_themselves(model: str) -> None:
    assert canonical(model) == model
    assert gpu(model, 1) == Gpu(model, 1000, MEMORY[model])


def test_memory_tells_the_two_a100_apart() -> None:
    assert gpu("A100", 8, 81920 * 1024**2) == Gpu("A100-80GB", 8000, 80 * GIB)
    assert gpu("A100", 8, 40960 * 1024**2) == Gpu("A100", 8000, 40 * GIB)


def test_a_little_less_is_the_data_sheets_memory() -> None:
    """EC2 tells 22888 MiB of an L4, Compute Engine's page 24 GB, the device itself 23034 MiB: it is one kind."""
    assert gpu("L4", 2, 22888 * MIB) == Gpu("L4", 2000, 24 * GIB)
    assert nominal("T4", 15360 * MIB) == 16 * GIB
    assert nominal("V100", 16160 * MIB) == 16 * GIB
    assert nominal("V100", 32510 * MIB) == 32 * GIB


def test_what_is_told_wins_where_it_is_another_size() -> None:
    assert gpu("A10", 1, 4 * GIB) == Gpu("A10", 1000, 4 * GIB), "a part of one"
    assert nominal("B200", 190 * GIB) == 190 * GIB
    assert nominal("Z9", 7 * GIB) == 7 * GIB
    assert nominal("T4", 14 * GIB) == 14 * GIB


def test_no_devices_or_no_memory_is_no_gpu() -> None:
    assert gpu("T4", 0) is None
    assert gpu("Z9", 1) is None
    assert gpu("Z9", 1, 8 * GIB) == Gpu("Z9", 1000, 8 * GIB)


def test_memories_are_plausible() -> None:
    assert all(4 * GIB <= size <= 512 * GIB for size in MEMORY.values())
