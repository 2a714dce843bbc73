"""A real OpenStack on loopback: keystone, placement, glance, neutron and nova over MariaDB, from `.venv-openstack`.

It starts from a prepared copy (`tests.openstack.prepare`) within seconds, on free ports. Only nova's
hypervisor and neutron's wire are pretended.
"""

import getpass
import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template

from tests.openstack.processes import Processes
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv-openstack"
TEMPLATES = Path(__file__).resolve().parent / "templates"
REGION = "RegionOne"
ZONES = {"host-a": "a", "host-b": "b"}
"""Nova's hosts, and the availability zone of each."""
PASSWORD = "only-for-tests"  # of every account here: the stack listens on loopback alone
PATHS = {"identity": "/v3", "placement": "", "image": "", "network": "", "compute": "/v2.1"}
"""The services of the catalogue by type, and the path of each one's endpoint."""
WSGI = {
    "identity": "keystone.wsgi.api", "placement": "placement.wsgi.api", "image": "glance.wsgi.api",
    "network": "neutron.wsgi.api",
}  # fmt: skip
START_S = 300.0
_PREFIX = "atoll-os-"


def missing() -> str:
    """Return why the stack cannot be started here; empty where it can."""
    if not (VENV / "bin" / "nova-manage").exists():
        return "OpenStack's servers are not installed: make check-openstack installs them and runs this"
    absent = [name for name in ("mariadbd", "mariadb", "mariadb-install-db", "setpriv") if not program(name)]
    return f"not installed: {', '.join(absent)} (Debian: mariadb-server, util-linux)" if absent else ""


class Stack:
    """One OpenStack below `folder`. `bound`: its processes end with the thread that started them."""

    def __init__(self, folder: Path, *, bound: bool = True) -> None:
        self.folder = folder
        self.guests = folder / "guests"
        self.processes = Processes(folder, bound=bound)
        self._ports = {service: free_port() for service in PATHS}
        self._socket = folder / "my.sock"

    def url(self, service: str) -> str:
        """Return a service's own endpoint, whatever the catalogue says."""
        return f"http://127.0.0.1:{self._ports[service]}{PATHS[service]}"

    def database(self, name: str) -> str:
        """Return a database's URL."""
        return f"mysql+pymysql://root@localhost/{name}?unix_socket={self._socket}"

    def start(self, prepared: Path, catalogue: Mapping[str, str] | None = None) -> None:
        """Start from a prepared copy; `catalogue` puts other URLs, such as a proxy's, before the services."""
        shutil.copytree(prepared, self.folder, dirs_exist_ok=True)
        self.configure()
        self.start_database()
        self.place(catalogue or {})
        self.start_services()
        self.processes.until("nova", lambda: answers(self.url("compute")), START_S)

    def stop(self) -> None:
        """End every process; the folder stays."""
        self.processes.stop()

    def sql(self, statements: str) -> str:
        """Run statements as the database's owner; return what they print."""
        argv = [program("mariadb"), "--no-defaults", "-N", "-B", "-S", str(self._socket)]
        return subprocess.run(argv, input=statements, capture_output=True, text=True, check=True, timeout=60).stdout

    def run(self, argv: Sequence[str]) -> None:
        """Run a program of the servers' venv to its end, in the stack's folder; raise with what it printed."""
        done = subprocess.run(
            argv, cwd=self.folder, env=self._environment(), capture_output=True, text=True, timeout=300
        )
        if done.returncode:
            raise RuntimeError(f"{argv} ended with {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")

    def configure(self) -> None:
        """Write every service's configuration, and the entry point that neutron finds its driver by."""
        plugin = self.folder / "plugins" / "atoll_test-0.dist-info"
        for path in (plugin, self.folder / "lock", self.folder / "state", self.guests):
            path.mkdir(parents=True, exist_ok=True)
        # Nova wants to see that it was on this host before; its hypervisor here names the nodes.
        (self.folder / "state" / "compute_id").write_text(str(uuid.uuid5(uuid.NAMESPACE_DNS, "atoll-test")))
        (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: atoll-test\nVersion: 0\n")
        (plugin / "entry_points.txt").write_text(
            "[neutron.ml2.mechanism_drivers]\natoll_test = tests.openstack.server.ports:AlwaysBound\n"
        )
        login = {
            "auth_url": self.url("identity"), "auth_type": "password", "username": "services", "password": PASSWORD,
            "project_name": "services", "user_domain_id": "default", "project_domain_id": "default",
            "region_name": REGION,
        }  # fmt: skip
        words = {
            "folder": self.folder, "database": "mysql+pymysql://root@localhost", "socket": self._socket,
            "etc": VENV / "etc", "identity": self.url("identity"),
            "login": "\n".join(f"{key} = {value}" for key, value in login.items()),
        }  # fmt: skip
        for template in TEMPLATES.iterdir():
            (self.folder / template.name).write_text(Template(template.read_text()).substitute(words))

    def start_database(self) -> None:
        """Start MariaDB on a socket in the folder; it need not survive a power cut."""
        options = {
            "datadir": self.folder / "my", "user": getpass.getuser(), "socket": self._socket,
            "innodb-flush-log-at-trx-commit": 0, "innodb-doublewrite": 0, "innodb-buffer-pool-size": "64M",
            "innodb-log-file-size": "8M", "max-connections": 300, "character-set-server": "utf8mb3",
        }  # fmt: skip
        argv = [program("mariadbd"), "--no-defaults", "--skip-networking", "--skip-log-bin"]
        argv += [f"--{name}={value}" for name, value in options.items()]
        self.processes.start("mariadbd", argv, self._environment(), self.folder)
        self.processes.until("MariaDB", self._socket.exists, 30)

    def place(self, catalogue: Mapping[str, str]) -> None:
        """Tell the databases where everything is now: they remember where it was when they were made."""
        urls = {service: catalogue.get(service, self.url(service)) for service in PATHS}
        endpoints = "".join(
            f"UPDATE keystone.endpoint e JOIN keystone.service s ON e.service_id = s.id SET e.url = '{url}'"
            f" WHERE s.type = '{service}';"
            for service, url in urls.items()
        )
        cells = "".join(
            f"UPDATE nova_api.cell_mappings SET database_connection = '{self.database(name)}'"
            f" WHERE database_connection LIKE '%/{name}?%';"
            for name in ("nova_cell0", "nova_cell1")
        )
        self.sql(endpoints + cells)

    def start_services(self, services: Iterable[str] = PATHS) -> None:
        """Start them; nova loads meanwhile and then waits for the others."""
        python = [str(VENV / "bin" / "python"), "-W", "ignore", "-m"]
        for service in services:
            argv = [*python, "tests.openstack.server.wsgi", WSGI.get(service, ""), str(self._ports[service])]
            if service == "compute":
                needed = ",".join(self.url(other) for other in WSGI)
                argv = [*python, "tests.openstack.server.compute", str(self._ports[service]), ",".join(ZONES), needed]
                argv += ["--config-file", str(self.folder / "nova.conf")]
            self.processes.start(service, argv, self._environment(), self.folder)

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": f"{VENV / 'bin'}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(self.folder),
            "PYTHONPATH": f"{ROOT}:{self.folder / 'plugins'}",
            "NO_PROXY": "127.0.0.1",
            "ATOLL_TEST_GUESTS": str(self.guests),
            "OS_KEYSTONE_CONFIG_FILES": str(self.folder / "keystone.conf"),
            "OS_KEYSTONE_CONFIG_DIR": str(self.folder),
            "OS_PLACEMENT_CONFIG_DIR": str(self.folder),
            "OS_GLANCE_CONFIG_DIR": str(self.folder),
            "OS_NEUTRON_CONFIG_FILES": str(self.folder / "neutron.conf"),
        }


def own_folder() -> Path:
    """Make a folder for a stack, and remove those whose owners died before they could."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        owner = folder / "owner"
        if owner.exists() and not Path(f"/proc/{owner.read_text()}").exists() and not Processes(folder).alive():
            shutil.rmtree(folder, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    (folder / "owner").write_text(str(os.getpid()))
    return folder


def answers(url: str) -> bool:
    """Say whether anything answers HTTP there."""
    try:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5).close()
    except urllib.error.HTTPError as error:
        error.close()
    except OSError:
        return False
    return True


def program(name: str) -> str:
    """Return where a system program is; empty where it is not."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin") or ""
