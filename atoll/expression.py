"""Expressions: the small conditions and sums of policies, checked once when read, then evaluated without risk.

The language is a corner of Python's: names such as `session.gpu`, numbers, texts, lists, comparisons, `in`, `and`,
`or`, `not`, `+ - * / // %`, `a if b else c`, and `min`, `max`, `abs`. Everything has a kind that is known when the
text is read: only numbers are counted with, so that nothing that is evaluated can grow (`'x' * 10**9`), and what
is left to go wrong later is arithmetic.
"""

import ast
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

from atoll.errors import AtollError, Invalid
from atoll.suggest import hint

MAX_LENGTH = 1000
"""Characters of an expression."""
MAX_DEPTH = 30
"""How deep its parts may be nested."""
MAX_NUMBER = 10**18


class Kind(StrEnum):
    """What a part of an expression is."""

    NUMBER = "a number"
    TEXT = "a text"
    FLAG = "true or false"
    TEXTS = "a list of texts"
    NUMBERS = "a list of numbers"


Scope: TypeAlias = Mapping[str, Mapping[str, Kind]]
"""What may be named: the kinds of each object's fields, by the object's name, in the order of the arguments."""


class Unevaluable(AtollError):
    """An expression has no value for these facts, such as one that divides by zero."""

    code = "UNEVALUABLE"
    status = 400


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression that was found good: call it with one object for each name of its scope.

    `reads` are the fields it names (`session.gpu`), sorted. A call returns a value of `kind` or raises `Unevaluable`.
    """

    text: str
    kind: Kind
    reads: tuple[str, ...]
    _run: Callable[..., Any] = field(repr=False, compare=False)

    def __call__(self, *facts: object) -> Any:
        """Return the value for these facts; about 0.2 µs."""
        try:
            return self._run(*facts)
        except ArithmeticError as error:
            raise Unevaluable(f"`{self.text}`: {error}") from error


def parse(text: str, scope: Scope, kind: Kind = Kind.FLAG) -> Expression:
    """Return the expression of `text`, which must be of `kind`; raise `Invalid` for anything that is not allowed."""
    reader = _Reader(text, scope)
    tree = _tree(text)
    found = reader.kind(tree.body, 0)
    if found is not kind:
        raise reader.wrong(f"is {found}, and must be {kind}", _ADVICE.get((found, kind), ""))
    return Expression(text, kind, tuple(sorted(reader.reads)), _function(tree.body, scope))


def _tree(text: str) -> ast.Expression:
    if len(text) > MAX_LENGTH:
        raise Invalid(f"the expression has {len(text)} characters", hint=f"{MAX_LENGTH} at most: make it several")
    if not text.strip():
        raise Invalid("the expression is empty", hint="write one like: session.gpu > 4")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # doubtful spellings such as `1in(2, 3)` are none
            return ast.parse(f"({text}\n)", mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError, Warning) as error:
        why = error.msg if isinstance(error, SyntaxError) else "it cannot be read"
        raise Invalid(f"`{_short(text)}` is no expression: {why}", hint="write one like: session.gpu > 4") from None


def _function(body: ast.expr, scope: Scope) -> Callable[..., Any]:
    """Return a function of the scope's objects: the tree holds nothing but what `_Reader` knows."""
    arguments = ast.arguments(
        posonlyargs=[], args=[ast.arg(arg=name) for name in scope], kwonlyargs=[], kw_defaults=[], defaults=[]
    )
    tree = ast.fix_missing_locations(ast.Expression(ast.Lambda(args=arguments, body=body)))
    functions = {"__builtins__": {}, "min": min, "max": max, "abs": abs}
    run: Callable[..., Any] = eval(compile(tree, "<policy>", "eval"), functions)  # noqa: S307 - a tree that was checked
    return run


class _Reader:
    """Walks a tree once: finds the kind of every part, and refuses every part that it does not know."""

    def __init__(self, text: str, scope: Scope) -> None:
        self._text = f"({text}\n)"
        self._scope = scope
        self.reads: set[str] = set()

    def wrong(self, why: str, advice: str = "", node: ast.AST | None = None) -> Invalid:
        """Return the error about a part, or about the whole."""
        part = ast.get_source_segment(self._text, node) if node is not None else self._text[1:-2]
        return Invalid(f"`{_short(part or '')}` {why}", hint=advice)

    def kind(self, node: ast.expr, depth: int) -> Kind:
        """Return what a part is."""
        if depth > MAX_DEPTH:
            raise Invalid("the expression is nested too deep", hint=f"{MAX_DEPTH} levels at most: make it several")
        look = _LOOKS.get(type(node))
        if look is None:
            raise self.wrong("is not allowed in an expression", _REFUSED.get(type(node), ""), node)
        return look(self, node, depth + 1)

    def _constant(self, node: ast.Constant, _: int) -> Kind:
        value = node.value
        if isinstance(value, bool):
            return Kind.FLAG
        if isinstance(value, str):
            return Kind.TEXT
        if isinstance(value, int | float) and abs(value) <= MAX_NUMBER:
            return Kind.NUMBER
        if isinstance(value, int | float):
            raise self.wrong("is too large a number", f"{MAX_NUMBER:g} at most", node)
        raise self.wrong("is not allowed in an expression", "write numbers, 'texts', True or False", node)

    def _name(self, node: ast.Name, _: int) -> Kind:
        if fields := self._scope.get(node.id):
            raise self.wrong("has fields, and is no value", f"write for example {node.id}.{next(iter(fields))}", node)
        known = ", ".join(f"{name}.…" for name in self._scope)
        raise self.wrong("is not known here", hint(node.id, self._scope, f"known: {known}"), node)

    def _attribute(self, node: ast.Attribute, depth: int) -> Kind:
        if not isinstance(node.value, ast.Name):
            raise self.wrong("is not allowed: fields have no fields", "", node)
        fields = self._scope.get(node.value.id)
        if fields is None:
            return self.kind(node.value, depth)
        if node.attr not in fields:
            known = ", ".join(fields)
            raise self.wrong("is not known here", hint(node.attr, fields, f"{node.value.id} has {known}"), node)
        self.reads.add(f"{node.value.id}.{node.attr}")
        return fields[node.attr]

    def _list(self, node: ast.List | ast.Tuple, depth: int) -> Kind:
        kinds = {self.kind(each, depth) for each in node.elts}
        lists = {Kind.TEXT: Kind.TEXTS, Kind.NUMBER: Kind.NUMBERS}
        if len(kinds) != 1 or not kinds <= lists.keys():
            raise self.wrong("must hold texts only, or numbers only", "write for example ('L4', 'T4')", node)
        return lists[kinds.pop()]

    def _all(self, node: ast.BoolOp, depth: int) -> Kind:
        for each in node.values:
            self._must(each, Kind.FLAG, depth)
        return Kind.FLAG

    def _unary(self, node: ast.UnaryOp, depth: int) -> Kind:
        kind = {ast.Not: Kind.FLAG, ast.USub: Kind.NUMBER, ast.UAdd: Kind.NUMBER}.get(type(node.op))
        if kind is None:
            raise self.wrong("is not allowed in an expression", "", node)
        return self._must(node.operand, kind, depth)

    def _arithmetic(self, node: ast.BinOp, depth: int) -> Kind:
        if not isinstance(node.op, _OPERATORS):
            raise self.wrong("is not allowed in an expression", "there are + - * / // %", node)
        self._must(node.left, Kind.NUMBER, depth)
        return self._must(node.right, Kind.NUMBER, depth)

    def _compare(self, node: ast.Compare, depth: int) -> Kind:
        left = self.kind(node.left, depth)
        for operator, part in zip(node.ops, node.comparators, strict=True):
            right = self.kind(part, depth)
            if isinstance(operator, ast.In | ast.NotIn):
                good = right in _HOLDERS.get(left, ())
            elif isinstance(operator, ast.Eq | ast.NotEq):
                good = left is right
            else:
                good = left is right and left in (Kind.NUMBER, Kind.TEXT) and isinstance(operator, _ORDERS)
            if not good:
                raise self.wrong(f"compares {left} with {right}", _ADVICE.get((left, right), ""), node)
            left = right
        return Kind.FLAG

    def _either(self, node: ast.IfExp, depth: int) -> Kind:
        self._must(node.test, Kind.FLAG, depth)
        return self._must(node.orelse, self.kind(node.body, depth), depth)

    def _call(self, node: ast.Call, depth: int) -> Kind:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in _FUNCTIONS:
            raise self.wrong("is not allowed", hint(name, _FUNCTIONS, "there are min, max and abs"), node)
        least, most = _FUNCTIONS[name]
        if node.keywords or not least <= len(node.args) <= most:
            raise self.wrong("has the wrong number of arguments", "abs takes one, min and max two or more", node)
        for each in node.args:
            self._must(each, Kind.NUMBER, depth)
        return Kind.NUMBER

    def _must(self, node: ast.expr, wanted: Kind, depth: int) -> Kind:
        found = self.kind(node, depth)
        if found is not wanted:
            raise self.wrong(f"is {found}, and must be {wanted} here", _ADVICE.get((found, wanted), ""), node)
        return found


_LOOKS: Mapping[type[ast.expr], Callable[[_Reader, Any, int], Kind]] = {
    ast.Constant: _Reader._constant,
    ast.Name: _Reader._name,
    ast.Attribute: _Reader._attribute,
    ast.List: _Reader._list,
    ast.Tuple: _Reader._list,
    ast.BoolOp: _Reader._all,
    ast.UnaryOp: _Reader._unary,
    ast.BinOp: _Reader._arithmetic,
    ast.Compare: _Reader._compare,
    ast.IfExp: _Reader._either,
    ast.Call: _Reader._call,
}
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod)
_ORDERS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_HOLDERS = {Kind.TEXT: (Kind.TEXT, Kind.TEXTS), Kind.NUMBER: (Kind.NUMBERS,)}
_FUNCTIONS = {"min": (2, 20), "max": (2, 20), "abs": (1, 1)}
_REFUSED: Mapping[type[ast.expr], str] = {
    ast.Subscript: "of labels write: 'team=red' in session.labels",
    ast.JoinedStr: "write plain texts",
    ast.Lambda: "write the condition itself",
}
_ADVICE = {
    (Kind.NUMBER, Kind.FLAG): "compare it, for example with > 0",
    (Kind.TEXT, Kind.FLAG): "compare it, for example with == 'batch'",
    (Kind.TEXTS, Kind.TEXT): "write it the other way round: 'L4' in session.gpu_models",
}


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:59]}…"
