"""What the tree holds and does not hold: licence, links, addresses, patches, imports of drivers."""

import ast
import re
import tomllib
from dataclasses import asdict

from atoll.host.config import ServerConfig
from tests.structure.source import ROOT, name, parse, product_files, python_files, tracked_files

TEXT = {
    ".py",
    ".md",
    ".toml",
    ".txt",
    ".sh",
    ".yaml",
    ".yml",
    ".json",
    ".html",
    ".css",
    ".js",
    ".svg",
    ".cfg",
    ".ini",
    "",
}
# Put together here, so that this file does not hold what it looks for.
REGISTRIES = [
    "pypi" + ".org", "pythonhosted" + ".org", "npmjs" + ".org", "npmjs" + ".com", "crates" + ".io", "docker" + ".io",
    "ghcr" + ".io", "unpkg" + ".com", "jsdelivr" + ".net", "cdnjs" + ".", "--index" + "-url", "--extra-index" + "-url",
    "--find" + "-links", "--trusted" + "-host",
]  # fmt: skip


def test_the_licence_is_apache_2() -> None:
    licence = (ROOT / "LICENSE").read_text()
    assert "Apache License" in licence
    assert "Version 2.0, January 2004" in licence


def test_no_file_names_a_registry_or_this_checkout() -> None:
    mirrored = re.compile("|".join(re.escape(word) for word in [*REGISTRIES, str(ROOT) + "/"]))
    makefile = (ROOT / "Makefile").read_text()
    assert "--no-emit-index" + "-url" in makefile  # asks that none be written: the one good mention
    found = {}
    for path in tracked_files():
        if path.suffix in TEXT and path.name != "Makefile" and path.stat().st_size < 4_000_000:
            hits = set(mirrored.findall(path.read_text(errors="replace")))
            if hits:
                found[name(path)] = hits
    assert found == {}


def test_requirements_are_hashed() -> None:
    for kind in ("base", "dev", "bench", "openstack-servers"):
        text = (ROOT / "requirements" / f"{kind}.txt").read_text()
        pins = re.findall(r"^[a-zA-Z0-9_.\[\]-]+==", text, re.MULTILINE)
        blocks = re.split(r"^(?=[a-zA-Z0-9])", text, flags=re.MULTILINE)
        assert len(pins) > 10
        assert all("--hash=sha256:" in block for block in blocks if "==" in block)


def test_tests_use_fakes_and_never_patch() -> None:
    patches = []
    for path in python_files("tests", "bench"):
        for node in ast.walk(parse(path)):
            spelled = ast.unparse(node) if isinstance(node, ast.Attribute | ast.ImportFrom) else ""
            if spelled in {"monkeypatch.setattr", "monkeypatch.setitem"} or re.match(
                r"(unittest\.mock|mock\.patch|mocker\.patch|from unittest\.mock|from mock)", spelled
            ):
                patches.append(f"{name(path)}:{node.lineno}")  # type: ignore[attr-defined]
    assert patches == []


def test_every_test_folder_is_a_package() -> None:
    folders = {path.parent for path in python_files("tests")}
    assert [name(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_drivers_are_independent_of_each_other() -> None:
    drivers = {path.parent.name for path in (ROOT / "providers").glob("*/__init__.py")} - {"prices"}
    assert "sim" in drivers
    for path in product_files():
        inside = path.relative_to(ROOT).parts
        if inside[0] != "providers" or inside[1] not in drivers:
            continue
        for node in ast.walk(parse(path)):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            others = {m for m in modules for d in drivers - {inside[1]} if m.startswith(f"providers.{d}")}
            assert others == set(), f"{name(path)} imports another driver: {others}"


def test_time_and_chance_are_ports() -> None:
    """Outside atoll.host, the command line and machine programs nothing reads a clock or makes chance by itself."""
    called = re.compile(
        r"^(time\.(time|monotonic|time_ns)|datetime\.(now|utcnow)|random\.\w+|uuid\.uuid4|secrets\.\w+)$"
    )
    rooms = (
        "autoscaler",
        "federation/routing",
        "federation/control",
        "agent/core.py",
        "tunnel/frames.py",
        "tunnel/mux.py",
        "tunnel/resume.py",
    )
    found = [
        f"{name(path)}:{node.lineno} {ast.unparse(node.func)}"
        for path in product_files()
        if name(path).startswith(rooms)
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call) and called.match(ast.unparse(node.func))
    ]
    assert found == []


def test_links_in_the_manual_lead_somewhere() -> None:
    broken = []
    for path in tracked_files():
        if path.suffix != ".md":
            continue
        for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
            file, _, anchor = target.partition("#")
            if "://" in target or target.startswith("mailto:"):
                continue
            there = (path.parent / file) if file else path
            if not there.exists() or (anchor and anchor not in anchors(there.read_text())):
                broken.append(f"{name(path)}: {target}")
    assert broken == []


def anchors(text: str) -> set[str]:
    """Return the anchors that the headings of a Markdown page make."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_manual_page_can_be_reached_from_the_readme() -> None:
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen or page.suffix != ".md" or not page.exists():
            continue
        seen.add(page)
        todo += [
            (page.parent / t.partition("#")[0]).resolve() for t in re.findall(r"\]\(([^)\s]+)\)", page.read_text())
        ]
    pages = {path for path in tracked_files() if path.suffix == ".md" and path.is_relative_to(ROOT / "docs")}
    assert {name(path) for path in pages - seen} == set()


def test_decisions_have_the_four_parts() -> None:
    pages = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
    assert len(pages) >= 7
    for number, page in enumerate(pages, start=1):
        assert page.name.startswith(f"{number:04}-")
        headings = re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE)
        assert headings == ["Context", "Decision", "Non-Goals", "Alternatives"], name(page)


def test_the_manual_names_every_key_of_the_configuration() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    told = tomllib.loads(page.partition("```toml\n")[2].partition("```")[0])
    known = {
        section: {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}
        for section, values in asdict(ServerConfig()).items()
    }
    assert told == known, "keys and their defaults"
