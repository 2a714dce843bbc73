"""Nova's pretend hypervisor with four GPUs, whose guests really run their user data. Runs in nova.

`HOW` (JSON, in the guests' folder) may say how guests are booted: `slow_boot_s`, `prefix`, `environment`.
"""

import base64
import json
import os
import threading
import uuid
from pathlib import Path
from typing import Any

from nova.compute import power_state  # type: ignore[import-not-found]
from nova.virt import fake, hardware  # type: ignore[import-not-found]

from tests.clouds.guests import Guests
from tests.openstack.server import GPUS, HOW, MADE

FOLDER = Path(os.environ.get("ATOLL_TEST_GUESTS", "/nonexistent"))

guests = Guests(FOLDER)


class GuestDriver(fake.FakeDriver):  # type: ignore[misc]
    vcpus = 64
    memory_mb = 512 * 1024
    local_gb = 4000

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._booting: dict[str, threading.Timer] = {}

    def get_available_resource(self, nodename: str) -> Any:
        found = super().get_available_resource(nodename)
        found["uuid"] = _identity(nodename)
        found["pci_passthrough_devices"] = json.dumps([_device(number) for number in range(1, GPUS + 1)])
        return found

    def get_nodenames_by_uuid(self, refresh: bool = False) -> dict[str, str]:
        return {_identity(name): name for name in self.get_available_nodes()}

    def spawn(self, context: Any, instance: Any, *args: Any, **kwargs: Any) -> None:
        super().spawn(context, instance, *args, **kwargs)
        if intent := instance.metadata.get("atoll-intent"):
            with (FOLDER / MADE).open("a") as made:
                made.write(f"{intent}\n")
        self._boot(instance)

    def destroy(self, context: Any, instance: Any, *args: Any, **kwargs: Any) -> None:
        self._cancel(instance)
        guests.discard(instance.uuid)
        super().destroy(context, instance, *args, **kwargs)

    def power_off(self, instance: Any, timeout: int = 0, retry_interval: int = 0) -> None:
        self._cancel(instance)
        guests.stop(instance.uuid)
        super().power_off(instance, timeout, retry_interval)

    def power_on(self, context: Any, instance: Any, *args: Any, **kwargs: Any) -> None:
        super().power_on(context, instance, *args, **kwargs)
        self._boot(instance)

    def reboot(self, context: Any, instance: Any, *args: Any, **kwargs: Any) -> None:
        self._cancel(instance)
        guests.stop(instance.uuid)
        super().reboot(context, instance, *args, **kwargs)
        self._boot(instance)

    def get_info(self, instance: Any, use_cache: bool = True) -> Any:
        info = super().get_info(instance, use_cache)
        switched_off = instance.uuid not in self._booting and not guests.running(instance.uuid)
        return hardware.InstanceInfo(state=power_state.SHUTDOWN) if switched_off else info

    def get_console_output(self, context: Any, instance: Any) -> bytes:
        return guests.console(instance.uuid).encode()

    def _boot(self, instance: Any) -> None:
        how = json.loads((FOLDER / HOW).read_text()) if (FOLDER / HOW).exists() else {}
        guests.prefix = tuple(how.get("prefix", ()))
        guests.environment = dict(how.get("environment", {}))
        script = base64.b64decode(instance.user_data or "").decode()
        if not (wait := how.get("slow_boot_s", 0)):
            guests.boot(instance.uuid, script)
            return
        timer = threading.Timer(wait, self._boot_late, (instance.uuid, script))
        timer.daemon = True
        self._booting[instance.uuid] = timer
        timer.start()

    def _boot_late(self, key: str, script: str) -> None:
        guests.boot(key, script)
        self._booting.pop(key, None)

    def _cancel(self, instance: Any) -> None:
        if timer := self._booting.pop(instance.uuid, None):
            timer.cancel()


def _identity(node: str) -> str:
    """Name a host's node alike at every start: the database remembers it."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, node))


def _device(number: int) -> dict[str, object]:
    return {
        "address": f"0000:{number:02x}:00.0",
        "vendor_id": "10de",
        "product_id": "20b0",
        "status": "available",
        "dev_type": "type-PCI",
        "parent_addr": None,
        "numa_node": 0,
        "label": "label_10de_20b0",
    }
