"""The least an application credential must be allowed to do, as keystone's access rules. Pure."""

import json
from collections.abc import Mapping, Sequence

RULES: Sequence[Mapping[str, str]] = [
    {"service": service, "method": method, "path": path}
    for service, method, path in (
        ("compute", "GET", "/v2.1/servers/detail"),
        ("compute", "GET", "/v2.1/servers/*"),
        ("compute", "POST", "/v2.1/servers"),
        ("compute", "POST", "/v2.1/servers/*/action"),
        ("compute", "DELETE", "/v2.1/servers/*"),
        ("compute", "GET", "/v2.1/flavors/detail"),
        ("compute", "GET", "/v2.1/flavors/*/os-extra_specs"),
        ("compute", "GET", "/v2.1/limits"),
        ("compute", "GET", "/v2.1/os-availability-zone"),
        ("image", "GET", "/v2/images"),
        ("image", "GET", "/v2/images/*"),
        ("network", "GET", "/v2.0/networks"),
        ("network", "GET", "/v2.0/networks/*"),
        ("network", "GET", "/v2.0/security-groups"),
    )
]
"""Where a cloud has its services below another path, the paths here begin with it."""


def command(name: str = "atoll") -> str:
    """Return the line that makes such a credential: restricted, and good for these calls only."""
    return f"openstack application credential create {name} --role member --access-rules '{json.dumps(list(RULES))}'"
