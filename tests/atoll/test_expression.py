"""Expressions: what they may say, what they refuse, and that nothing written in one can do harm."""

import ast
import math
import time
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.errors import Invalid
from atoll.expression import MAX_DEPTH, MAX_LENGTH, Expression, Kind, Unevaluable, parse

SCOPE = {
    "session": {"gpu": Kind.NUMBER, "type": Kind.TEXT, "labels": Kind.TEXTS, "spot": Kind.FLAG},
    "offer": {"price": Kind.NUMBER, "site": Kind.TEXT},
}


@dataclass(frozen=True, slots=True)
class Session:
    gpu: float = 2.0
    type: str = "batch"
    labels: tuple[str, ...] = ("team=red", "stage=test")
    spot: bool = True


@dataclass(frozen=True, slots=True)
class Offer:
    price: float = 0.5
    site: str = "hall"


def value(text: str, kind: Kind = Kind.FLAG) -> object:
    return parse(text, SCOPE, kind)(Session(), Offer())


@pytest.mark.parametrize(
    "text",
    [
        "session.gpu > 1",
        "0 < session.gpu <= 2",
        "session.type == 'batch' and not offer.site == 'far'",
        "session.type in ('batch', 'service') or False",
        "'team=red' in session.labels",
        "'bat' in session.type",
        "'team=blue' not in session.labels",
        "session.gpu in (1, 2, 4)",
        "offer.price * session.gpu + 1 - 1 == 1.0",
        "7 // 2 == 3 and 7 % 2 == 1 and -3 < +3",
        "max(session.gpu, 8) == 8 and min(1, 2, 3) == 1 and abs(-1) == 1",
        "(True if session.gpu > 1 else False)",
        "offer.price < 0.6 if session.spot else offer.price < 0.3",
        "session.type\n  == 'batch'  # a remark",
    ],
)
def test_what_may_be_said(text: str) -> None:
    assert value(text) is True


def test_an_expression_knows_its_kind_and_what_it_reads() -> None:
    found = parse("2 if offer.site == 'x' else session.gpu", SCOPE, Kind.NUMBER)
    assert (found.kind, found.reads) == (Kind.NUMBER, ("offer.site", "session.gpu"))
    assert found(Session(gpu=3), Offer()) == 3


@pytest.mark.parametrize(
    ("text", "says", "advice"),
    [
        ("session.gpus > 1", "`session.gpus` is not known here", "did you mean 'gpu'?"),
        ("sesion.gpu > 1", "`sesion` is not known here", "did you mean 'session'?"),
        ("offer.nothing == 1", "not known", "offer has price, site"),
        ("session", "has fields", "session.gpu"),
        ("session.gpu", "is a number, and must be true or false", "> 0"),
        ("session.gpu and True", "must be true or false here", "> 0"),
        ("session.type and True", "must be true or false here", "== 'batch'"),
        ("session.gpu == 'two'", "compares a number with a text", ""),
        ("session.labels in 'a'", "compares a list of texts with a text", "the other way round"),
        ("session.spot < True", "compares", ""),
        ("session.gpu is 2", "compares", ""),
        ("session.gpu.real > 1", "fields have no fields", ""),
        ("session.__class__ == 'x'", "not known", ""),
        ("'x' * 10**9 == 'x'", "is a text, and must be a number here", ""),
        ("session.type * 9 == 'x'", "must be a number here", ""),
        ("10**10**10 > 1", "not allowed", "there are + - * / // %"),
        ("1 << 99 > 1", "not allowed", ""),
        ("~1 > 1", "not allowed", ""),
        ("9999999999999999999 > 1", "too large", ""),
        ("1e400 > 1", "too large", ""),
        ("1j == 1j", "not allowed", ""),
        ("None == None", "not allowed", ""),
        ("b'x' == b'x'", "not allowed", ""),
        ("open('x') == 'y'", "not allowed", "there are min, max and abs"),
        ("mni(1, 2) > 1", "not allowed", "did you mean 'min'?"),
        ("min(1) > 0", "number of arguments", ""),
        ("min(1, 2, key=abs) > 0", "number of arguments", ""),
        ("abs('x') > 0", "must be a number here", ""),
        ("session.labels[0] == 'x'", "not allowed", "'team=red' in session.labels"),
        ("f'{session.gpu}' == 'x'", "not allowed", "plain texts"),
        ("(lambda: True)() == 1", "not allowed", ""),
        ("[x for x in (1,)] == 1", "not allowed", ""),
        ("(x := 1) > 0", "not allowed", ""),
        ("session.gpu in ()", "texts only, or numbers only", ""),
        ("session.gpu in (1, 'x')", "texts only, or numbers only", ""),
        ("1 if True else 'x'", "must be a number here", ""),
        ("session.gpu > ", "is no expression", "write one like"),
        ("session.gpu > 1; import os", "is no expression", ""),
        ("'\\d' == 'x'", "is no expression", ""),
        ("1in(1, 2)", "is no expression", ""),
        ("1 > 0\0", "is no expression", ""),
        ("", "is empty", ""),
        ("(" * 400 + "1" + ")" * 400, "is no expression", ""),
        ("-" * 900 + "1 > 0", "nested too deep", ""),
        ("not " * 200 + "True", "nested too deep", ""),
        ("1" * (MAX_LENGTH + 1), "characters", ""),
    ],
)
def test_what_may_not_be_said(text: str, says: str, advice: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(text, SCOPE)
    assert says in caught.value.message
    assert advice in caught.value.hint


@pytest.mark.parametrize("text", ["1 / session.gpu > 0", "1 // session.gpu > 0", "1 % session.gpu > 0"])
def test_what_has_no_value_is_told_as_such(text: str) -> None:
    with pytest.raises(Unevaluable, match="session"):
        parse(text, SCOPE)(Session(gpu=0), Offer())


NAMES = [
    "session.gpu",
    "session.type",
    "session.labels",
    "session.spot",
    "offer.price",
    "offer.site",
    "session.x",
    "os",
]
WORDS = [
    *NAMES, "'x'", "''", "1", "0", "2.5", "9" * 18, "True", "(1, 2)", "('a', 'b')",
    "(", ")", ",", "+", "-", "*", "/", "//", "%", "**", "<<", "|", "~", "<", "<=", "==", "!=", ">", ">=", "in", "is",
    "and", "or", "not", "if", "else", "[", "]", ".", ":", ":=", "{", "}", "=",
    "not in", "min(", "max(", "abs(", "eval(", "lambda", "for", "await", "yield", "__class__",
]  # fmt: skip
LEAVES = {
    Kind.NUMBER: ["session.gpu", "offer.price", "0", "3", "-1.5", "1e18"],
    Kind.TEXT: ["session.type", "offer.site", "'hall'", "''"],
    Kind.FLAG: ["session.spot", "True", "False"],
}


def numbers(below: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.tuples(below, st.sampled_from(["+", "-", "*", "/", "//", "%"]), below).map(" ".join)
    calls = st.tuples(st.sampled_from(["min", "max"]), below, below).map(lambda t: f"{t[0]}({t[1]}, {t[2]})")
    return st.one_of(pairs.map("({})".format), calls, below.map("abs({})".format), below.map("(-{})".format))


NUMBERS = st.recursive(st.sampled_from(LEAVES[Kind.NUMBER]), numbers, max_leaves=25)
TEXTS = st.sampled_from(LEAVES[Kind.TEXT])


def flags(below: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    joined = st.tuples(below, st.sampled_from(["and", "or", "=="]), below).map(" ".join).map("({})".format)
    either = st.tuples(below, below, below).map(lambda t: f"({t[0]} if {t[1]} else {t[2]})")
    return st.one_of(joined, either, below.map("(not {})".format))


COMPARED = st.one_of(
    st.tuples(NUMBERS, st.sampled_from(["<", "<=", "==", "!=", ">", ">="]), NUMBERS).map(" ".join),
    st.tuples(TEXTS, st.sampled_from(["==", "in", "not in", "<"]), TEXTS).map(" ".join),
    TEXTS.map("{} in session.labels".format),
).map("({})".format)
GOOD = st.recursive(st.one_of(COMPARED, st.sampled_from(LEAVES[Kind.FLAG])), flags, max_leaves=8)


def tried(text: str) -> Expression | None:
    """Read and evaluate a text: nothing but the documented errors, and at once."""
    began = time.process_time()
    try:
        found = parse(text, SCOPE)
        assert found(Session(gpu=0.0), Offer()) in (True, False)
    except Unevaluable:
        return found
    except Invalid:
        return None
    finally:
        assert time.process_time() - began < 2.0
    return found


@settings(max_examples=300)
@given(st.one_of(st.text(max_size=200), st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join)))
def test_any_text_is_refused_or_harmless(text: str) -> None:
    found = tried(text)
    if found is not None:
        names = {node.id for node in ast.walk(ast.parse(f"({text}\n)", mode="eval")) if isinstance(node, ast.Name)}
        assert names <= {"session", "offer", "min", "max", "abs"}
        assert all(read in NAMES for read in found.reads)


@settings(max_examples=300)
@given(GOOD)
def test_what_is_well_formed_is_what_python_says(text: str) -> None:
    found = tried(text)
    if found is None:  # too long or too deep: nothing else is wrong with it
        depth = max_depth(ast.parse(text, mode="eval").body)
        assert len(text) > MAX_LENGTH or depth > MAX_DEPTH
        return
    facts = {"session": Session(gpu=0.0), "offer": Offer()}
    try:
        wanted = eval(text, dict(facts))
    except ArithmeticError:
        with pytest.raises(Unevaluable):
            found(*facts.values())
    else:
        assert found(*facts.values()) == wanted


def max_depth(node: ast.AST) -> int:
    return 1 + max((max_depth(child) for child in ast.iter_child_nodes(node)), default=0)


def test_numbers_stay_small_enough_to_count_with() -> None:
    most = "*".join(["9" * 18] * MAX_DEPTH)
    large = parse(most, SCOPE, Kind.NUMBER)(Session(), Offer())
    assert math.log10(large) < MAX_LENGTH
    with pytest.raises(Invalid, match="nested too deep"):
        parse(f"{most}*1*1", SCOPE, Kind.NUMBER)
