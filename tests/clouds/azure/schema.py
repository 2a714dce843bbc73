"""Request bodies held to the SDK's own models, which are generated from Azure's public API description.

Refused: properties that no model has, that are read-only, missing required ones, wrong types, unknown words of an
enumeration. (The real service ignores some of these; a strict server finds more.)
"""

import enum
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any

from tests.clouds.azure.arm import ArmError


def check(model: type, body: object, path: str = "") -> None:
    """Raise `ArmError` where a body does not fit a model of the SDK."""
    if not isinstance(body, Mapping):
        raise _wrong(path, "an object is expected")
    fields = _fields(model)
    for key, value in body.items():
        where = f"{path}.{key}" if path else key
        if key not in fields:
            raise _wrong(where, f"could not find member '{key}' on object of type '{model.__name__}'")
        kind, visible = fields[key]
        if visible == ["read"]:
            raise _wrong(where, "it is read-only")
        _value(kind, value, where)
    for key, (kind, visible) in fields.items():
        if visible != ["read"] and key not in body and not _optional(kind):
            raise _wrong(f"{path}.{key}" if path else key, "required parameter is missing (null)")


_OPEN = frozenset({"VirtualMachineSizeTypes"})
"""Enumerations the description itself calls outdated: the sizes that exist are asked for by another call."""
_KNOWN: dict[type, dict[str, tuple[Any, list[str] | None]]] = {}


def _fields(model: type) -> dict[str, tuple[Any, list[str] | None]]:
    """Return a model's properties by their name on the wire: annotation and visibility."""
    if model not in _KNOWN:
        model({})  # the SDK works out its names when a model is first made
        found = {}
        for owner in reversed(model.__mro__):
            if not getattr(owner, "_is_model", False) or "__annotations__" not in vars(owner):
                continue
            models = sys.modules[owner.__module__.rpartition(".")[0]]  # which its annotations call `_models`
            scope = {**vars(typing), **vars(sys.modules[owner.__module__]), "_models": models}
            for attribute, annotation in typing.get_type_hints(owner, scope).items():
                field = getattr(model, "_attr_to_rest_field", {}).get(attribute)
                if field is not None:
                    found[field._rest_name] = (annotation, field._visibility)
        _KNOWN[model] = found
    return _KNOWN[model]


def _value(kind: Any, value: object, path: str) -> None:
    if value is None:
        return
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        _either([arg for arg in args if arg is not type(None)], value, path)
    elif origin is list:
        if not isinstance(value, list):
            raise _wrong(path, "a list is expected")
        for index, item in enumerate(value):
            _value(args[0], item, f"{path}[{index}]")
    elif origin is dict:
        if not isinstance(value, Mapping):
            raise _wrong(path, "an object is expected")
        for key, item in value.items():
            _value(args[1], item, f"{path}.{key}")
    elif getattr(kind, "_is_model", False):
        check(kind, value, path)
    else:
        _plain(kind, value, path)


def _either(kinds: list[Any], value: object, path: str) -> None:
    words = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, enum.Enum)]
    if words and words[0].__name__ not in _OPEN:
        if value not in [each.value for word in words for each in word]:
            raise _wrong(path, f"error converting value {str(value)[:40]!r} to type '{words[0].__name__}'")
        return
    _value(next((kind for kind in kinds if kind not in words), kinds[0]), value, path)


def _plain(kind: Any, value: object, path: str) -> None:
    if kind is Any:
        return
    wanted: Any = {str: str, bool: bool, int: int, float: (int, float)}.get(kind, str)
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
        raise _wrong(path, f"{getattr(kind, '__name__', kind)} is expected")


def _optional(kind: Any) -> bool:
    return type(None) in typing.get_args(kind)


def _wrong(path: str, what: str) -> ArmError:
    return ArmError(400, "InvalidRequestContent", f"The request content was invalid: {path}: {what}.")
