"""An event: one change of one object, in the order in which changes were committed."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What changed. `rev` is given by the store at commit and rises by commit order; 0 before.

    `kind` is the noun (`session agent group instance site provider token plan`), `key` its id or name,
    `state` the state entered or the verb (`created`, `deleted`, …).
    """

    kind: str
    key: str
    state: str
    at: float
    name: str = ""
    reason: str = ""
    message: str = ""
    data: dict[str, str] = field(default_factory=dict)
    rev: int = 0
