"""The blocks of our modules as python-hcl2 reads them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest


class Block(NamedTuple):
    """A `resource` or `data` block."""

    kind: str
    type: str
    name: str
    body: dict[str, Any]


def blocks(module: Path) -> Iterator[Block]:
    """Yield the resources and data of a module; skip where python-hcl2 is not installed."""
    hcl2 = pytest.importorskip("hcl2", reason="python-hcl2 is not installed")
    for path in sorted(module.glob("*.tf")):
        read = hcl2.loads(path.read_text())
        for kind in ("resource", "data"):
            for item in read.get(kind, []):
                for type_, named in item.items():
                    for name, body in named.items():
                        yield Block(kind, type_.strip('"'), name.strip('"'), plain(body))


def plain(body: dict[str, Any]) -> dict[str, Any]:
    """Return a body without what the parser notes for itself."""
    return {key: value for key, value in body.items() if not re.fullmatch(r"__\w+__", key)}


def text(module: Path) -> str:
    """Return the whole text of a module."""
    return "\n".join(path.read_text() for path in sorted(module.glob("*.tf")))
