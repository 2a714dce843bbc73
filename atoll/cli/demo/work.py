"""The demo's sessions: small real programs whose printed result is known beforehand."""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from atoll.document import session_spec
from atoll.session import SessionSpec

_PACED = """
import sys, time
def paced(step, seconds, n):
    end, begun = None, time.monotonic()
    for i in range(n):
        end = step(i)
        time.sleep(max(0, begun + seconds * (i + 1) / n - time.monotonic()))
    return end
size, seconds = int(sys.argv[1]), float(sys.argv[2])
"""
# Each counts with its own few lines; `paced` spreads the work over the time that the demo gives it.
PRIMES = (
    _PACED
    + """
found = []
def step(i):
    for n in range(max(2, size * i // 20), size * (i + 1) // 20):
        if all(n % p for p in found if p * p <= n):
            found.append(n)
    return len(found)
print(paced(step, seconds, 20))
"""
)
CHAIN = (
    _PACED
    + """
import hashlib
value = b'atoll'
def step(i):
    global value
    for _ in range(size // 20):
        value = hashlib.sha256(value).digest()
    return value.hex()
print(paced(step, seconds, 20))
"""
)
PI = (
    _PACED
    + """
def arctan(inverse, unity):
    total = term = unity // inverse
    n, sign = 3, -1
    while term:
        term //= inverse * inverse
        total += sign * (term // n)
        n, sign = n + 2, -sign
    return total
def step(i):
    unity = 10 ** (size + 10)
    return 4 * (4 * arctan(5, unity) - arctan(239, unity)) // 10 ** 10
print(str(paced(step, seconds, 4))[-12:])
"""
)
MATRIX = (
    _PACED
    + """
def times(a, b):
    return [[sum(x * y for x, y in zip(row, col)) % 1000003 for col in zip(*b)] for row in a]
matrix = [[(i * size + j) % 97 for j in range(size)] for i in range(size)]
state = matrix
def step(i):
    global state
    state = times(state, matrix)
    return sum(map(sum, state))
print(paced(step, seconds, 8))
"""
)
COLLATZ = (
    _PACED
    + """
best = (0, 0)
def step(i):
    global best
    for n in range(max(1, size * i // 20), size * (i + 1) // 20):
        m, length = n, 1
        while m != 1:
            m, length = (m // 2 if m % 2 == 0 else 3 * m + 1), length + 1
        best = max(best, (length, n))
    return best[1]
print(paced(step, seconds, 20))
"""
)
GANG = """
import os, sys, time
rank, nodes = int(os.environ['ATOLL_RANK']), int(os.environ['ATOLL_NODES'])
time.sleep(3)
print(sum(n * n for n in range(rank, 100000, nodes)))
"""
APP = """
import http.server, os
class Squares(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        last = self.path == '/done'
        text = b'bye' if last else str(int(self.path.strip('/') or 0) ** 2).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(text)))
        self.end_headers()
        self.wfile.write(text)
        server.over = last
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(('127.0.0.1', int(os.environ['ATOLL_APP_SQUARES_PORT'])), Squares)
server.over = False
while not server.over:
    server.handle_request()
print('served')
"""


@dataclass(frozen=True, slots=True)
class Work:
    """One session of the demo with what it must print (rank 0)."""

    spec: SessionSpec
    expected: str


def _primes(size: int) -> str:
    sieve = bytearray([1]) * size
    sieve[:2] = b"\0\0"
    for n in range(2, int(size**0.5) + 1):
        if sieve[n]:
            sieve[n * n :: n] = bytes(len(range(n * n, size, n)))
    return str(sum(sieve))


def _chain(size: int) -> str:
    value = b"atoll"
    for _ in range(size):
        value = hashlib.sha256(value).digest()
    return value.hex()


def _pi(size: int) -> str:
    # Euler's series with 7 and 3/79, unlike the session's own (Machin's, with 5 and 239).
    unity: int = 10 ** (size + 10)

    def arctan(inverse: int) -> int:
        total = term = unity * inverse // (1 + inverse * inverse)
        n = 1
        while term:
            term = term * 2 * n // ((2 * n + 1) * (1 + inverse * inverse))
            total += term
            n += 1
        return total

    return str((20 * arctan(7) + 8 * _arctan_fraction(unity)) // 10**10)[-12:]


def _arctan_fraction(unity: int) -> int:
    """Return arctan(3/79) in units of 1/unity: pi = 20 arctan(1/7) + 8 arctan(3/79), Euler 1755."""
    total: int
    term: int
    total = term = unity * 3 * 79 // (79 * 79 + 9)
    n = 1
    while term:
        term = term * 2 * n * 9 // ((2 * n + 1) * (79 * 79 + 9))
        total += term
        n += 1
    return total


def _matrix(size: int) -> str:
    # Powers by squaring: M^9 = M * ((M^2)^2)^2, unlike the session's one product after the other.
    matrix = [[(i * size + j) % 97 for j in range(size)] for i in range(size)]
    power = matrix
    for _ in range(3):
        power = _times(power, power)
    return str(sum(map(sum, _times(matrix, power))))


def _times(left: list[list[int]], right: list[list[int]]) -> list[list[int]]:
    columns = list(zip(*right, strict=True))
    return [[sum(x * y for x, y in zip(row, col, strict=True)) % 1_000_003 for col in columns] for row in left]


def _collatz(size: int) -> str:
    lengths = {1: 1}
    for start in range(2, size):
        path, n = [], start
        while n not in lengths:
            path.append(n)
            n = n // 2 if n % 2 == 0 else 3 * n + 1
        for back, m in enumerate(reversed(path), 1):
            lengths[m] = lengths[n] + back
    return str(max((lengths[n], n) for n in range(1, size))[1])


_KINDS: tuple[tuple[str, str, int, Callable[[int], str]], ...] = (
    ("primes", PRIMES, 6000, _primes),
    ("chain", CHAIN, 20000, _chain),
    ("pi", PI, 300, _pi),
    ("matrix", MATRIX, 24, _matrix),
    ("collatz", COLLATZ, 4000, _collatz),
)


def batch(name: str, number: int, seconds: float, **more: Any) -> Work:
    """Return the `number`th of a series of programs, lasting about `seconds` a run."""
    kind, source, size, solve = _KINDS[number % len(_KINDS)]
    document = {
        "name": f"{name}-{kind}-{number}",
        "command": [sys.executable, "-c", source, str(size), str(seconds)],
        "resources": {"cpu": 1, "memory": "64MiB"},
        "lifetime": {"expected": "20s", "grace": "2s"},
        "retry": {"max": 10},
    }
    return Work(session_spec(_merged(document, more)), solve(size))


def first_wave() -> list[Work]:
    """Return what arrives at once: more than the local agent can take."""
    return [batch("a", number, 4.0) for number in range(15)]


def second_wave() -> list[Work]:
    """Return what comes once the spot site has capacity; some of it only runs there, and is hit by the reclaim."""
    spot = [batch("c", number, 10.0, placement={"groups": ["spot"]}) for number in range(4)]
    return spot + [batch("b", number, 4.0) for number in range(11)]


def specials() -> tuple[Work, Work, Work]:
    """Return the protected session, the gang and the app."""
    protected = batch(
        "protected", 0, 28.0, placement={"groups": ["on-demand"]}, lifetime={"protect": True, "expected": "30s"}
    )
    size = {"cpu": 1, "memory": "64MiB"}
    gang = {"name": "gang", "command": [sys.executable, "-c", GANG], "nodes": 2, "resources": size}
    app = {"name": "app", "command": [sys.executable, "-c", APP], "apps": {"squares": 0}, "resources": size}
    short = {"lifetime": {"expected": "20s", "grace": "2s"}, "retry": {"max": 10}}
    return (
        protected,
        Work(session_spec({**gang, **short}), gang_part(0)),
        Work(session_spec({**app, **short, "type": "service"}), "served"),
    )


def gang_part(rank: int) -> str:
    """Return what the gang's member of this rank must print."""
    return str(sum(n * n for n in range(rank, 100000, 2)))


def _merged(document: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    below = {k: {**document[k], **v} if isinstance(document.get(k), dict) else v for k, v in more.items()}
    return {**document, **below}
