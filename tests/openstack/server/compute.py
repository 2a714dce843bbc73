"""Nova as one process, so that `fake://` can carry its messages: conductor, scheduler, two hosts and the API.

`python -m tests.openstack.server.compute PORT HOST,HOST URL,URL --config-file FILE` waits for the URLs (the
services it needs) once it is loaded. Runs in the servers' venv.
"""

from nova import monkey_patch  # type: ignore[import-not-found]

monkey_patch.patch(backend="threading")

import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
import traceback  # noqa: E402
import urllib.error  # noqa: E402
import urllib.request  # noqa: E402
from typing import Any  # noqa: E402

import nova.conf  # type: ignore[import-not-found] # noqa: E402
from nova import config, context, objects, service  # noqa: E402
from nova.compute import rpcapi as compute_rpc  # type: ignore[import-not-found] # noqa: E402
from nova.conductor import rpcapi as conductor_rpc  # type: ignore[import-not-found] # noqa: E402
from nova.objects import host_mapping  # type: ignore[import-not-found] # noqa: E402
from nova.scheduler import rpcapi as scheduler_rpc  # type: ignore[import-not-found] # noqa: E402
from nova.virt import fake  # type: ignore[import-not-found] # noqa: E402
from oslo_log import log  # type: ignore[import-not-found] # noqa: E402
from paste.deploy import loadapp  # type: ignore[import-not-found] # noqa: E402
from waitress import serve  # type: ignore[import-untyped] # noqa: E402

from tests.openstack.server.hypervisor import GuestDriver, guests  # noqa: E402

WAIT_S = 120.0


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def end(signum: int, frame: object) -> None:
    guests.close()
    os._exit(0)


def fail(kind: type[BaseException], error: BaseException, where: Any) -> None:
    """End the process although its threads would go on."""
    traceback.print_exception(kind, error, where)
    os._exit(1)


def main(port: int, hosts: list[str], needed: list[str]) -> None:
    config.parse_args(sys.argv)
    log.setup(nova.conf.CONF, "nova")
    sys.excepthook = fail
    objects.register_all()
    objects.Service.enable_min_version_cache()
    fake.GuestDriver = GuestDriver  # where nova looks drivers up
    deadline = time.monotonic() + WAIT_S
    while not all(answers(url) for url in needed):
        if time.monotonic() > deadline:
            sys.exit(f"nova waits for {needed} in vain")
        time.sleep(0.1)
    start(binary="nova-conductor", topic=conductor_rpc.RPC_TOPIC)
    start(binary="nova-scheduler", topic=scheduler_rpc.RPC_TOPIC)
    for host in hosts:
        start(binary="nova-compute", topic=compute_rpc.RPC_TOPIC, topic_alt=compute_rpc.RPC_TOPIC_ALT, host=host)
    host_mapping.discover_hosts(context.get_admin_context())
    application = loadapp(f"config:{nova.conf.CONF.wsgi.api_paste_config}", name="osapi_compute")
    serve(application, host="127.0.0.1", port=port, threads=8, _quiet=True)


def start(**options: Any) -> None:
    service.Service.create(**options).start()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end)
    port, hosts, needed = int(sys.argv[1]), sys.argv[2].split(","), sys.argv[3].split(",")
    sys.argv = ["nova", *sys.argv[4:]]
    main(port, hosts, needed)
