"""The agent's archive for the control plane's own Python, and for others from wheels that are kept."""

import tarfile
import zipfile
from pathlib import Path

import pytest

from atoll.errors import Conflict
from federation.api.agentpack import COMPILED, AgentPack, _fits

NEXT = "cpython-399-x86_64-linux-gnu"


def wheel(folder: Path, name: str, python: str = "cp399", abi: str = "cp399", machine: str = "x86_64") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-1.0-{python}-{abi}-manylinux2014_{machine}.manylinux_2_17_{machine}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/__init__.py", "made = 'for another Python'\n")
        archive.writestr(f"{name}/_core.so", b"\x7fELF")
    return path


async def test_its_own_python_needs_no_wheels(tmp_path: Path) -> None:
    pack = AgentPack(tmp_path / "cache")
    with tarfile.open(await pack.path()) as archive:
        names = archive.getnames()
    assert {"agent/__main__.py", "msgspec/__init__.py", "structlog/__init__.py", "atoll/__init__.py"} <= set(names)
    assert await pack.path(pack.tag) == await pack.path()


async def test_another_python_gets_its_wheels_and_what_is_not_compiled(tmp_path: Path) -> None:
    for name in COMPILED:
        wheel(tmp_path / "wheels", name)
    pack = AgentPack(tmp_path / "cache", tmp_path / "wheels")
    with tarfile.open(await pack.path(NEXT)) as archive:
        names = archive.getnames()
        made = archive.extractfile("msgspec/__init__.py")
        assert made is not None
        assert made.read() == b"made = 'for another Python'\n"
    assert {"agent/__main__.py", "structlog/__init__.py", "cffi/_core.so"} <= set(names)
    assert not [name for name in names if pack.tag in name], "nothing compiled for the control plane's Python"
    assert len(names) == len(set(names))


@pytest.mark.parametrize("kept", [(), COMPILED[:2]])
async def test_a_wheel_that_lacks_is_named(tmp_path: Path, kept: tuple[str, ...]) -> None:
    for name in kept:
        wheel(tmp_path / "wheels", name)
    with pytest.raises(Conflict, match=r"this machine's Python is cpython-399") as refused:
        await AgentPack(tmp_path / "cache", tmp_path / "wheels").path(NEXT)
    assert all((name in refused.value.hint) == (name not in kept) for name in COMPILED)


async def test_a_strange_tag_is_no_path(tmp_path: Path) -> None:
    for name in COMPILED:
        wheel(tmp_path / "wheels", name)
    with pytest.raises(Conflict):
        await AgentPack(tmp_path / "cache", tmp_path / "wheels").path("../../cpython-399-x86_64-linux-gnu")


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("cryptography-1-cp311-abi3-manylinux_2_28_x86_64.whl", True),
        ("cryptography-1-cp313-abi3-manylinux_2_28_x86_64.whl", False),
        ("cryptography-1-cp312-cp312-manylinux_2_28_x86_64.whl", True),
        ("cryptography-1-cp311-cp311-manylinux_2_28_x86_64.whl", False),
        ("cryptography-1-cp312-cp312-manylinux_2_28_aarch64.whl", False),
        ("cryptography-1-cp312-cp312-musllinux_1_2_x86_64.whl", False),
        ("cryptography-1-cp312-cp312-macosx_11_0_x86_64.whl", False),
        ("cryptography_vectors-1-cp312-cp312-manylinux_2_28_x86_64.whl", False),
        ("cryptography-1.tar.gz", False),
    ],
)
def test_which_wheels_fit(name: str, fits: bool) -> None:
    assert _fits(name, "cryptography", "cpython-312-x86_64-linux-gnu") is fits
