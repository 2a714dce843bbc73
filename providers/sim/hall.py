"""The pretend cloud's machine hall: each machine a folder and a process of its own, `providers.sim.machine`."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from atoll.host.files import write_private
from atoll.slots import GIB, MIB, Slots
from providers.port import MachineState
from providers.sim import folder
from providers.sim.cloud import Boot
from providers.sim.processes import alive, end_folder

_CONSOLE_BYTES = 64 * 1024
_LAST = {MachineState.STOPPED: MachineState.STOPPING, MachineState.ENDED: MachineState.ENDING}


class ProcessMachines:
    """Machines as folders below `directory` and processes started through `launch`.

    They run on when every driver is gone, and obey orders that they find in their folder.
    """

    def __init__(self, directory: Path, launch: Callable[[Sequence[str], Path, Mapping[str, str]], int]) -> None:
        self._directory = directory
        self._launch = launch

    def prepare(self, boot: Boot) -> None:
        """Make the machine's folder: what it boots from, and its empty home."""
        base = self._folder(boot.provider_id)
        (base / folder.HOME).mkdir(mode=0o700, parents=True, exist_ok=True)
        (base / folder.TMP).mkdir(mode=0o700, exist_ok=True)
        write_private(base / folder.USER_DATA, boot.user_data)
        write_private(base / folder.POWEROFF, f"#!/bin/sh\nkill -TERM \"$(cut -d: -f1 '{base / folder.PID}')\"\n")
        (base / folder.POWEROFF).chmod(0o700)
        settings = {
            "boot_s": boot.boot_s,
            "joins": boot.joins,
            "reclaim_after_s": boot.reclaim_after_s,
            "notice_s": boot.notice_s,
            "max_life_s": boot.max_life_s,
            "slots": slots_text(boot.slots),
        }
        write_private(base / folder.BOOT, json.dumps(settings))

    def switch_on(self, provider_id: str) -> None:
        """Start the machine's process; a second one for the same folder ends at once by itself."""
        base = self._folder(provider_id)
        if alive(_text(base / folder.PID)):
            return
        for name in (folder.STATUS, folder.ORDER, folder.PID, folder.NOTICE):
            (base / name).unlink(missing_ok=True)
        path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/bin:/bin')}"
        environment = {"PATH": path, "LANG": os.environ.get("LANG", "C.UTF-8")}
        self._launch([sys.executable, "-m", "providers.sim.machine", str(base)], base, environment)

    def look(self, provider_id: str) -> tuple[MachineState, str] | None:
        """Return what the machine last said of itself, unless its process is gone."""
        base = self._folder(provider_id)
        known = _text(base / folder.PID)
        running = alive(known)  # before the status is read: a machine writes its last one, then ends
        status = folder.read(base / folder.STATUS)
        state = MachineState(str(status.get("state", MachineState.PENDING)))
        message = str(status.get("message", ""))
        if running and state in _LAST:  # its process is about to go: it holds the folder until then
            return _LAST[state], message
        if running or state in _LAST:
            return state, message
        return (MachineState.ENDED, "its process was killed") if known else None

    def stop(self, provider_id: str) -> None:
        """Order the machine to end all that runs on it and keep its folder."""
        self._order(provider_id, {"do": "stop"})

    def terminate(self, provider_id: str) -> None:
        """Order the machine to end."""
        self._order(provider_id, {"do": "terminate"})

    def reclaim(self, provider_id: str, notice_s: float) -> None:
        """Order the machine to write its notice, and to end `notice_s` seconds later."""
        self._order(provider_id, {"do": "reclaim", "notice_s": notice_s})

    def discard(self, provider_id: str) -> None:
        """End what outlived the machine's process, and delete all but its console."""
        base = self._folder(provider_id)
        if not base.exists():
            return
        end_folder(base)
        for entry in base.iterdir():
            if entry.name in (folder.CONSOLE, folder.STATUS, folder.PID):
                continue
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)

    def console(self, provider_id: str) -> str:
        """Return the last 64 KiB of its console."""
        path = self._folder(provider_id) / folder.CONSOLE
        try:
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - _CONSOLE_BYTES))
                return file.read().decode(errors="replace")
        except OSError:
            return ""

    def _order(self, provider_id: str, order: dict[str, object]) -> None:
        """Leave an order in the folder and wake the machine; it also looks by itself once a second."""
        base = self._folder(provider_id)
        status = folder.read(base / folder.STATUS)
        if status.get("state") == MachineState.STOPPED and order["do"] == "terminate":
            folder.write(base / folder.STATUS, {"state": "ended", "message": "terminated while stopped"})
            return
        folder.write(base / folder.ORDER, order)
        known = _text(base / folder.PID)
        if alive(known):
            with suppress(ProcessLookupError):
                os.kill(int(known.partition(":")[0]), signal.SIGHUP)

    def _folder(self, provider_id: str) -> Path:
        return self._directory / provider_id


def slots_text(slots: Slots) -> str:
    """Return slots as `ATOLL_AGENT_SLOTS` takes them: `cpu=2,memory=4GiB,gpu=L4:1:24GiB`."""
    parts = [f"cpu={slots.cpu / 1000:g}", f"memory={_bytes(slots.memory)}"]
    if slots.disk:
        parts.append(f"disk={_bytes(slots.disk)}")
    parts += [f"gpu={gpu.model}:{gpu.milli / 1000:g}:{_bytes(gpu.memory)}" for gpu in slots.gpu]
    return ",".join(parts)


def _bytes(amount: int) -> str:
    for unit, size in (("GiB", GIB), ("MiB", MIB)):
        if amount and amount % size == 0:
            return f"{amount // size}{unit}"
    return str(amount)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
