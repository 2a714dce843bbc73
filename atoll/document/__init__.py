"""The document form of sessions, groups, sites, policies and so on: what YAML files hold and the REST API takes.

Every key is optional unless said; an unknown key is an error with "did you mean". cpu is in cores (`0.5`,
`"500m"`), memory and disk are `"24GiB"` or bytes, durations `"10m"` or seconds, prices units an hour.
What `dump_…` writes, the reader of the same noun reads back as an equal object.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from atoll.budget import Budget
from atoll.document.group import dump_group, group
from atoll.document.place import dump_provider, dump_site, provider, site
from atoll.document.rules import budget, dump_budget, dump_policy, policy
from atoll.document.session import MAX_APP_NAME, MAX_NODES, MAX_STDIN, dump_session_spec, session_spec
from atoll.errors import Invalid
from atoll.group import Group, Provider
from atoll.policy import Policy
from atoll.session import SessionSpec
from atoll.site import Site
from atoll.suggest import hint

__all__ = [
    "MAX_APP_NAME",
    "MAX_NODES",
    "MAX_STDIN",
    "READERS",
    "Noun",
    "budget",
    "dump_budget",
    "dump_group",
    "dump_policy",
    "dump_provider",
    "dump_session_spec",
    "dump_site",
    "group",
    "kind_of",
    "policy",
    "provider",
    "session_spec",
    "site",
]

Noun: TypeAlias = SessionSpec | Group | Provider | Site | Policy | Budget
"""What a document may describe."""

READERS: Mapping[str, Callable[[Mapping[str, Any]], Noun]] = {
    "session": session_spec,
    "group": group,
    "provider": provider,
    "site": site,
    "policy": policy,
    "budget": budget,
}
"""Reader of a document by its `kind`."""


def kind_of(document: object) -> str:
    """Return the `kind` of a document for `apply`; raise `Invalid` when it has none or an unknown one."""
    if not isinstance(document, Mapping):
        raise Invalid("a document must be a mapping of keys to values", hint="begin it with `kind: session`")
    kind = document.get("kind")
    if kind is None:
        raise Invalid("the document has no `kind`", hint=f"add `kind:` with one of {', '.join(READERS)}")
    if kind not in READERS:
        raise Invalid(f"unknown kind {kind!r}", hint=hint(str(kind), READERS, f"kinds: {', '.join(READERS)}"))
    return str(kind)
