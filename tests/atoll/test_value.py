import dataclasses

import pytest

from atoll.value import value


@value(order=True)
class Pair:
    left: int
    right: int = 0


@value(kw_only=True)
class Named:
    name: str
    pair: Pair = Pair(1)


def test_values_are_equal_and_hash_by_their_fields() -> None:
    assert Pair(1, 2) == Pair(1, 2) != Pair(2, 1)
    assert {Pair(1, 2), Pair(1, 2), Pair(2, 1)} == {Pair(1, 2), Pair(2, 1)}
    assert Pair(1, 2) < Pair(1, 3) < Pair(2)
    assert dataclasses.replace(Named(name="a"), name="b") == Named(name="b", pair=Pair(1, 0))


def test_values_have_no_other_fields() -> None:
    with pytest.raises(AttributeError):
        setattr(Pair(1), "middle", 1)  # noqa: B010 - the type checker would refuse it
    with pytest.raises(TypeError):
        Named("a")  # type: ignore[call-arg]
