"""Every document that the manual shows is one that Atoll reads."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from atoll import document
from atoll.errors import Invalid
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


FULL = [(place, part) for place, part in EXAMPLES if place.startswith("docs/configuration.md")]


@pytest.mark.parametrize(("place", "example"), FULL, ids=[part["kind"] for _, part in FULL])
def test_the_full_examples_show_every_key(place: str, example: dict[str, Any]) -> None:
    """`docs/configuration.md` lists all keys of a noun: an unknown one is refused with the names of all others."""
    for section, below in sections(example):
        below["~"] = 1
        try:
            document.READERS[example["kind"]](example)
        except Invalid as error:
            if error.hint.startswith("keys here: "):
                listed = set(error.hint.removeprefix("keys here: ").split(", "))
                assert listed - {"kind"} <= set(below), f"{place}: {section or example['kind']}"
        del below["~"]


def test_the_full_examples_are_of_what_people_schedule() -> None:
    assert {part["kind"] for _, part in FULL} >= {"session", "group", "site"}


def sections(part: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a document's mappings by their path: itself, and those below it."""
    yield path, part
    for key, value in list(part.items()):
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                yield from sections(item, f"{path}.{key}")
