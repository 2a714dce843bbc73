"""Reading a document's keys one by one, with types, ranges and unknown keys checked and the path in every error."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from atoll import duration
from atoll.errors import Invalid
from atoll.money import PER_UNIT, micros
from atoll.slots import parse_bytes, parse_milli
from atoll.suggest import hint

N = TypeVar("N", int, float)
MAX_BYTES = 2**60
MAX_MONEY = 1e9


class Fields:
    """One mapping of a document, at `path`. Each getter notes its key as known; `done` refuses all others."""

    def __init__(self, document: object, path: str, *ignored: str) -> None:
        if document is None:
            document = {}
        if not isinstance(document, Mapping):
            raise Invalid(f"{path} must be a mapping, not {_kind(document)}", hint="write keys below it, one a line")
        self.path = path
        self._document = document
        self._known = set(ignored)

    def done(self) -> None:
        """Raise `Invalid` when the mapping has a key that nothing asked for."""
        for key in self._document:
            if key not in self._known:
                keys = sorted(self._known)
                raise Invalid(
                    f"unknown key {key!r} in {self.path}", hint=hint(str(key), keys, f"keys here: {', '.join(keys)}")
                )

    def missing(self, key: str, advice: str) -> Invalid:
        """Return the error for a required key that is absent; a key that looks like it is named as misspelt."""
        for other in self._document:
            if other not in self._known and (meant := hint(str(other), [key])):
                return Invalid(f"unknown key {other!r} in {self.path}", hint=meant)
        return Invalid(f"{self.path}.{key} is missing", hint=advice)

    def refuse(self, keys: Iterable[str], why: str, advice: str) -> None:
        """Raise `Invalid` when any of `keys` is given: it makes no sense here, and `why` says so."""
        for key in keys:
            if self._document.get(key) is not None:
                raise Invalid(f"{self.path}.{key} cannot be given: {why}", hint=advice)

    def names(self) -> list[str]:
        """Return the mapping's keys, for one whose keys the user chooses; raise `Invalid` for one that is no text."""
        return [self._text("key", key) for key in self._document]

    def raw(self, key: str) -> Any:
        """Return the value as it stands, None when absent."""
        self._known.add(key)
        return self._document.get(key)

    def section(self, key: str) -> "Fields":
        """Return the mapping below `key`, empty when absent."""
        return Fields(self.raw(key), f"{self.path}.{key}")

    def text(self, key: str) -> str:
        """Return a text, empty when absent; a number counts as its text."""
        value = self.raw(key)
        return "" if value is None else self._text(key, value)

    def choice(self, key: str, among: Sequence[str], default: str) -> str:
        """Return one of `among`."""
        value = self.text(key) or default
        if value not in among:
            raise Invalid(
                f"{self.path}.{key} cannot be {value!r}", hint=hint(value, among, f"one of: {', '.join(among)}")
            )
        return value

    def flag(self, key: str, default: bool | None) -> bool | None:
        """Return true or false, `default` when absent."""
        value = self.raw(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def integer(self, key: str, default: int, *, low: int, high: int) -> int:
        """Return a whole number within `low..high`."""
        value = self.raw(key)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong(key, value, "a whole number")
        if not low <= value <= high:
            raise Invalid(f"{self.path}.{key} is {value}", hint=f"it must be between {low} and {high}")
        return value

    def milli(self, key: str, default: int) -> int:
        """Return thousandths of `0.5`, `2` or `250m`."""
        return self._number(key, default, parse_milli, "a number of cores or devices")

    def bytes(self, key: str, default: int) -> int:
        """Return bytes of `24GiB` or a whole number of bytes."""
        amount = self._number(key, default, _whole_bytes, "an amount like 24GiB")
        if not 0 <= amount <= MAX_BYTES:
            raise Invalid(f"{self.path}.{key} is out of range", hint="it must be between 0 and 1 EiB")
        return amount

    def seconds(self, key: str, default: float, *, low: float = 0.0, high: float = 1e9) -> float:
        """Return seconds of `10m` or a number of seconds, within `low..high`."""
        value = self._number(key, default, duration.parse, "a duration like 10m")
        if not low <= value <= high:
            raise Invalid(f"{self.path}.{key} is {value:g} seconds", hint=f"it must be between {low:g} and {high:g}")
        return value

    def optional_seconds(self, key: str, *, low: float) -> float | None:
        """Return seconds, None when absent."""
        return None if self.raw(key) is None else self.seconds(key, 0.0, low=low)

    def money(self, key: str, default: int | None) -> int | None:
        """Return micro-units of an amount in units, 0 or more."""
        value = self.raw(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_MONEY:
            raise self._wrong(key, value, "an amount of money like 0.81, 0 or more")
        return micros(value)

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of texts; one text counts as a list of one."""
        value = self.raw(key)
        if value is None:
            return ()
        if isinstance(value, str):
            return (value,) if value else ()
        if not isinstance(value, Sequence) or isinstance(value, bytes):
            raise self._wrong(key, value, "a list of texts")
        return tuple(self._text(f"{key}[{index}]", item) for index, item in enumerate(value))

    def texts_by_name(self, key: str) -> dict[str, str]:
        """Return a mapping of names to texts; numbers count as their text."""
        value = self.raw(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self._wrong(key, value, "a mapping of names to texts")
        return {self._text(key, name): self._text(f"{key}.{name}", item) for name, item in value.items()}

    def ports(self, key: str) -> dict[str, int]:
        """Return a mapping of names to ports; a list of names asks for free ports (0)."""
        value = self.raw(key)
        if value is None:
            return {}
        if isinstance(value, str | Sequence) and not isinstance(value, bytes):
            return dict.fromkeys(self.texts(key), 0)
        fields = Fields(value, f"{self.path}.{key}")
        return {str(name): fields.integer(name, 0, low=0, high=65535) for name in fields._document}

    def mapping(self, key: str) -> dict[str, object]:
        """Return a mapping with text keys and any values."""
        value = self.raw(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self._wrong(key, value, "a mapping")
        return {self._text(key, name): item for name, item in value.items()}

    def _number(self, key: str, default: N, read: Callable[[Any], N], wanted: str) -> N:
        value = self.raw(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise self._wrong(key, value, wanted)
        try:
            return read(value)
        except (Invalid, ValueError, OverflowError) as error:
            raise self._wrong(key, value, wanted) from error

    def _text(self, key: str, value: object) -> str:
        if isinstance(value, str):
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        raise self._wrong(key, value, "a text")

    def _wrong(self, key: str, value: object, wanted: str) -> Invalid:
        shown = repr(value) if isinstance(value, str | int | float) else _kind(value)
        return Invalid(f"{self.path}.{key} must be {wanted}, not {shown}", hint=f"see {self.path} in the manual")


def compact(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys whose value says something: not None, not an empty text, list or mapping."""
    return {key: value for key, value in document.items() if value is not None and value not in ("", [], {})}


def money_text(amount: int) -> int | float:
    """Return micro-units as units, whole where they are whole."""
    return amount // PER_UNIT if amount % PER_UNIT == 0 else amount / PER_UNIT


def _whole_bytes(value: str | float) -> int:
    if isinstance(value, float):
        if value != int(value):
            raise Invalid("a part of a byte")
        return int(value)
    return parse_bytes(value.strip()) if isinstance(value, str) else value


def _kind(value: object) -> str:
    names = {type(None): "nothing", bool: "true or false", list: "a list", tuple: "a list", dict: "a mapping"}
    return names.get(type(value), f"a {type(value).__name__}")
