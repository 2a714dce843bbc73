"""Values: dataclasses that the type checker keeps from being changed, and that are as cheap to make as plain ones.

A frozen dataclass sets each field through `object.__setattr__`, which more than doubles the time to make one; the
router makes several for every decision. Here only the type checker forbids to set fields, and values hash by them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def value(*, kw_only: bool = False, order: bool = False) -> Callable[[type[T]], type[T]]:
    """Make a class a dataclass with slots, equality and a hash by its fields, which must never be set."""
    return dataclass(slots=True, unsafe_hash=True, kw_only=kw_only, order=order)
