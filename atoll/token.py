"""A token: a join or API credential, stored only as a hash."""

from dataclasses import dataclass, field
from enum import StrEnum


class TokenKind(StrEnum):
    """What a token lets its bearer do."""

    JOIN = "join"  # make an agent of this group
    API = "api"  # use the REST API as `owner`
    RELAY = "relay"  # be this relay


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A credential. `id` is the SHA-256 of its secret, in hex; the secret itself is never stored.

    A relay's is bound to a `relay`, a join token to a `group` and, for launched machines, to the `instance` it was
    made for; it has `uses_left` and lapses at `expires_at` (None: never; API tokens only). `keys` are the agents it
    made, by their keys: a machine whose answer was lost asks again with the key it has. `roles` are what its bearer
    may do beyond what every user may: approve what needs that role, and as `admin` everything.
    """

    id: str
    kind: TokenKind
    owner: str = ""
    roles: tuple[str, ...] = ()
    site: str = ""
    group: str = ""
    instance: str = ""
    relay: str = ""
    uses_left: int = 1
    expires_at: float | None = None
    keys: dict[str, str] = field(default_factory=dict)
    created_at: float = 0.0
    version: int = 0
