"""What sites, groups and providers share: their documents in requests, and the name a path and a body agree on."""

from typing import Any

from atoll.errors import Invalid
from federation.api.route import Call


def body_for(call: Call) -> dict[str, Any]:
    """Return the body's document with the name of the path; raise `Invalid` when they differ."""
    document: dict[str, Any] = call.body
    name = call.path["name"]
    if document.setdefault("name", name) != name:
        raise Invalid(f"the document is of {document['name']!r}, but the path says {name!r}", hint="use one name")
    return document
