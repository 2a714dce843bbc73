"""A pure core, imported alone in a fresh interpreter, loads no clock, socket, chance, log, loop or framework."""

import json
import subprocess
import sys

import pytest

from tests.structure.source import PACKAGES, ROOT, name, product_files

NOUNS = (
    *(
        "atoll.agent",
        "atoll.clock",
        "atoll.document",
        "atoll.errors",
        "atoll.event",
        "atoll.gpus",
        "atoll.group",
        "atoll.ids",
    ),
    *("atoll.instance", "atoll.money", "atoll.offer", "atoll.plan", "atoll.session", "atoll.site", "atoll.slots"),
    *("atoll.states", "atoll.token", "atoll.duration", "atoll.fields", "atoll.suggest", "atoll.price", "atoll.pricing"),
)
LOOPS = {"asyncio", "socket", "ssl", "select", "selectors", "threading", "subprocess", "multiprocessing", "logging"}
CHANCE = {"random", "secrets", "uuid"}
FRAMEWORKS = {
    *{"aiohttp", "aiosqlite", "alembic", "asyncpg", "cryptography", "jinja2", "pynvml", "sqlalchemy", "structlog"},
    *{"uvloop", "yaml", "boto3", "botocore", "google", "azure", "openstack"},
}
EDGES = {"atoll.client", "atoll.host", "atoll.cli", "federation.store", "federation.control", "federation.api"}
LOADED = """import importlib, json, sys
for module in sys.argv[1:]:
    importlib.import_module(module)
print(json.dumps(list(sys.modules)))"""


def loaded(*modules: str) -> set[str]:
    """Return what a bare interpreter holds after importing `modules`."""
    command = [sys.executable, "-c", LOADED, *modules]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def core(package: str) -> list[str]:
    """Return the modules of a package, in dotted form."""
    files = [name(path) for path in product_files() if name(path).startswith(package.replace(".", "/") + "/")]
    return [file.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for file in files]


@pytest.mark.parametrize("noun", NOUNS)
def test_a_noun_loads_the_standard_library_and_nouns_only(noun: str) -> None:
    now = loaded(noun) - loaded()
    assert now & (LOOPS | CHANCE | FRAMEWORKS | EDGES | {"msgspec", "numpy"}) == set()
    ours = {module for module in now if module.split(".")[0] in PACKAGES}
    assert all(module.split(".")[0] == "atoll" for module in ours)


@pytest.mark.parametrize("package", ["autoscaler", "federation.routing"])
def test_a_pure_package_loads_no_outside(package: str) -> None:
    modules = core(package)
    assert len(modules) > 1
    # numpy is welcome in these two and loads what it likes: what it loads is not held against them.
    allowed = loaded("numpy") if "numpy" in loaded(*modules) else loaded()
    assert (loaded(*modules) - allowed) & (LOOPS | CHANCE | FRAMEWORKS | EDGES) == set()


@pytest.mark.parametrize("module", ["agent.core", "tunnel.frames", "tunnel.mux", "tunnel.resume"])
def test_a_sans_io_core_loads_no_outside(module: str) -> None:
    # msgspec (for the messages of tunnel.wire) loads datetime and uuid by itself.
    allowed = loaded("msgspec")
    assert (loaded(module) - allowed) & (LOOPS | CHANCE | FRAMEWORKS | EDGES) == set()


def test_the_agent_at_rest_loads_no_server_and_no_cryptography() -> None:
    heavy = {"aiohttp", "sqlalchemy", "alembic", "cryptography", "aiosqlite", "jinja2", "numpy", "federation"}
    assert loaded("agent.run", "agent.cli", "tunnel.link", "tunnel.dialer", "tunnel.identity") & heavy == set()


def test_help_loads_no_loop_server_or_sdk() -> None:
    program = (
        "import json, sys\nfrom atoll.cli.main import main\nsys.argv = ['atoll', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "print(json.dumps(list(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()
    modules = set(json.loads(done.stderr.splitlines()[-1]))
    assert modules & ({"asyncio", "ssl", "federation", "agent", "providers"} | FRAMEWORKS) == set()
