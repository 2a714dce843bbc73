"""Makes, once, what every stack starts from: databases, accounts, an image, flavors and a network.

The copy lies below `.venv-openstack`; another one is made when the servers or what is put into them change.
"""

import getpass
import hashlib
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.openstack import seed
from tests.openstack.stack import PASSWORD, PATHS, REGION, ROOT, START_S, VENV, Stack, answers, own_folder, program

KEPT = ("my", "fernet", "credential", "images", "state")
DATABASES = ("keystone", "placement", "glance", "neutron", "nova_api", "nova_cell0", "nova_cell1")


def prepared(tell: Callable[[str], None] = lambda _: None) -> Path:
    """Return the folder to start from, making it where there is none yet."""
    copy = VENV / "prepared" / _key()
    if copy.exists():
        return copy
    folder = own_folder()
    stack = Stack(folder)
    try:
        _make(stack, tell)
        stack.stop()  # the database's files are whole only then
        shutil.rmtree(VENV / "prepared", ignore_errors=True)
        copy.parent.mkdir()
        for name in KEPT:
            shutil.copytree(folder / name, folder / "copy" / name)
        shutil.move(folder / "copy", copy)
    finally:
        stack.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return copy


def _key() -> str:
    """Name what the copy depends on; configuration is written anew at every start."""
    sources = [ROOT / "requirements" / "openstack-servers.txt", Path(__file__), Path(seed.__file__)]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]


def _make(stack: Stack, tell: Callable[[str], None]) -> None:
    stack.configure()
    for name in ("fernet", "credential", "images"):
        (stack.folder / name).mkdir(mode=0o700)
    where = [f"--datadir={stack.folder / 'my'}", f"--user={getpass.getuser()}"]
    stack.run([
        program("mariadb-install-db"), "--no-defaults", *where, "--skip-test-db",
        "--auth-root-authentication-method=normal",
    ])  # fmt: skip
    stack.start_database()
    stack.sql("".join(f"CREATE DATABASE {name};" for name in DATABASES))
    tell("database server")
    _make_tables(stack)
    tell("tables")
    _bootstrap(stack)
    stack.start_services(["identity"])
    stack.processes.until("keystone", lambda: answers(stack.url("identity")), START_S)
    seed.accounts(stack.url)
    stack.start_services([service for service in PATHS if service != "identity"])
    stack.processes.until("nova", lambda: answers(stack.url("compute")), START_S)
    tell("accounts, services")
    seed.things(stack.url("identity"))
    tell("image, network, flavors, zones")


def _make_tables(stack: Stack) -> None:
    """Migrate all databases, side by side where they do not need each other."""
    nova = (str(VENV / "bin" / "nova-manage"), "--config-file", "nova.conf")
    cell = ("--transport-url", "fake://", "--database_connection", stack.database("nova_cell1"))
    chains: list[list[tuple[str, ...]]] = [
        [
            (*nova, "api_db", "sync"),
            (*nova, "cell_v2", "map_cell0", "--database_connection", stack.database("nova_cell0")),
            (*nova, "db", "sync"),
            (*nova, "cell_v2", "create_cell", "--name", "cell1", *cell),
        ],
        [(str(VENV / "bin" / "keystone-manage"), "--config-file", "keystone.conf", "db_sync")],
        [(str(VENV / "bin" / "glance-manage"), "--config-file", "glance-api.conf", "db_sync")],
        [(str(VENV / "bin" / "placement-manage"), "--config-file", "placement.conf", "db", "sync")],
        [(str(VENV / "bin" / "python"), "-m", "tests.openstack.server.tables", stack.database("neutron"))],
    ]

    def migrate(chain: Sequence[tuple[str, ...]]) -> None:
        for argv in chain:
            stack.run(argv)

    with ThreadPoolExecutor(len(chains)) as pool:
        list(pool.map(migrate, chains))


def _bootstrap(stack: Stack) -> None:
    keystone = (str(VENV / "bin" / "keystone-manage"), "--config-file", "keystone.conf")
    owner = ("--keystone-user", getpass.getuser(), "--keystone-group", getpass.getuser())
    stack.run((*keystone, "fernet_setup", *owner))
    stack.run((*keystone, "credential_setup", *owner))
    urls = [f"--bootstrap-{kind}-url={stack.url('identity')}" for kind in ("admin", "internal", "public")]
    stack.run((*keystone, "bootstrap", "--bootstrap-password", PASSWORD, *urls, "--bootstrap-region-id", REGION))
