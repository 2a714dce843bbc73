import pytest

from atoll.slots import GIB, MIB
from providers.reserve import usable


@pytest.mark.parametrize("nominal", [2 * GIB, 16 * GIB, 768 * GIB])
@pytest.mark.parametrize("taken", [0.03, 0.07])
def test_what_is_promised_is_there(nominal: int, taken: float) -> None:
    """Firmware and kernel take so much of machines of the common clouds."""
    assert 0.9 * nominal < usable(nominal) <= nominal * (1 - taken)


def test_whole_mebibytes() -> None:
    assert usable(16 * GIB) == 15155 * MIB
    assert usable(0) == 0
