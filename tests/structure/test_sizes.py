"""Nothing is too long to be read, and every public name says what it promises."""

import ast
from collections.abc import Iterator

from tests.structure.source import name, parse, product_files, python_files

MODULE_LINES = 600
FUNCTION_LINES = 80
Function = ast.FunctionDef | ast.AsyncFunctionDef
OURS = ("atoll", "tunnel", "providers", "autoscaler", "agent", "federation", "bench", "tests")


def test_no_module_is_over_600_lines() -> None:
    lines = {name(path): len(path.read_text().splitlines()) for path in python_files(*OURS)}
    assert {module: count for module, count in lines.items() if count > MODULE_LINES} == {}
    assert len(lines) > 50


def test_no_function_is_over_80_lines() -> None:
    long = {
        f"{name(path)}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path in python_files(*OURS)
        for node in ast.walk(parse(path))
        if isinstance(node, Function) and node.end_lineno and node.end_lineno - node.lineno >= FUNCTION_LINES
    }
    assert long == {}


def public(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, ast.AST]]:
    for node in body:
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        if any(
            ast.unparse(decorator).endswith((".setter", "override", "overload")) for decorator in node.decorator_list
        ):
            continue
        yield f"{prefix}{node.name}", node
        if isinstance(node, ast.ClassDef):
            yield from public(node.body, f"{prefix}{node.name}.")


def test_every_public_name_has_a_docstring() -> None:
    silent = [
        f"{name(path)}: {label}"
        for path in product_files()
        for label, node in [("the module", parse(path)), *public(parse(path).body, "")]
        if not ast.get_docstring(node)  # type: ignore[arg-type]
    ]
    assert silent == []


def test_a_module_can_be_said_in_one_sentence() -> None:
    for path in product_files():
        first = (ast.get_docstring(parse(path)) or "").split("\n\n")[0].split("\n")
        assert len(first) <= 2, f"{name(path)}: the first paragraph of its docstring is {len(first)} lines"


def test_no_class_is_named_after_nothing() -> None:
    vague = ("Manager", "Helper", "Util", "Utils", "Processor", "Handler")
    named = [
        f"{name(path)}: {node.name}"
        for path in product_files()
        for node in ast.walk(parse(path))
        if isinstance(node, ast.ClassDef) and node.name.endswith(vague)
    ]
    assert named == []
