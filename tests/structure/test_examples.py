"""Every document that the manual shows is one that Atoll reads."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from atoll import document
from federation.simulate import setups
from tests.structure.source import ROOT, name

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)
HERE = re.compile(r"^\$ cat > \S+\.ya?ml <<'END'\n(.*?)^END$", re.DOTALL | re.MULTILINE)
Example = tuple[str, dict[str, Any]]


def blocks(page: Path) -> Iterator[tuple[str, Any]]:
    """Yield what a page shows as YAML, in blocks and in here-documents, with the place."""
    text = page.read_text()
    for found in [*BLOCK.finditer(text), *HERE.finditer(text)]:
        line = text.count("\n", 0, found.start()) + 1
        for part in yaml.safe_load_all(found[1]):
            yield f"{name(page)}:{line}", part


EXAMPLES: list[Example] = [
    (place, part) for page in PAGES for place, part in blocks(page) if isinstance(part, dict) and "kind" in part
]
SETUPS: list[Example] = [
    (place, part) for page in PAGES for place, part in blocks(page) if isinstance(part, dict) and "machines" in part
]


@pytest.mark.parametrize(("place", "example"), EXAMPLES, ids=[place for place, _ in EXAMPLES])
def test_a_document_of_the_manual_reads(place: str, example: dict[str, Any]) -> None:
    reader = document.READERS[document.kind_of(example)]
    assert reader(example) == reader(example), place


@pytest.mark.parametrize(("place", "example"), SETUPS, ids=[place for place, _ in SETUPS])
def test_a_setup_of_the_manual_reads(place: str, example: dict[str, Any]) -> None:
    assert setups.of_document(example).groups, place


def test_the_manual_shows_a_document_of_every_kind() -> None:
    assert {example["kind"] for _, example in EXAMPLES} == set(document.READERS)
    assert SETUPS


def test_the_full_examples_name_every_key() -> None:
    """`docs/configuration.md` lists all keys of sessions, groups, sites, policies and budgets."""
    page = ROOT / "docs" / "configuration.md"
    shown: dict[str, set[str]] = {}
    for _, part in blocks(page):
        if isinstance(part, dict) and "kind" in part:
            shown.setdefault(part["kind"], set()).update(keys(part))
    for kind, wanted in known().items():
        assert wanted - shown.get(kind, set()) == set(), f"keys of a {kind} that the page does not show"


def keys(part: dict[str, Any], path: str = "") -> Iterator[str]:
    """Yield the paths of all keys of a document: `lifetime.max`."""
    for key, value in part.items():
        yield f"{path}{key}"
        if isinstance(value, dict):
            yield from keys(value, f"{path}{key}.")


class Asked(dict[str, Any]):
    """A document without anything that notes what it was asked for."""

    def __init__(self, path: str = "") -> None:
        super().__init__()
        self.path = path
