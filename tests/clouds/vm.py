"""A virtual machine of Debian 12 with its own kernel, systemd and cloud-init; it dials out through slirp only."""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.clouds import debian

HOST = "10.0.2.2"
"""Where a machine reaches this host's loopback."""
ACCELERATOR = os.environ.get("ATOLL_TEST_ACCELERATOR", "tcg")
"""QEMU's: `tcg` works everywhere. Having /dev/kvm is no proof that `kvm` does: inside some clouds it hangs."""


class Vm:
    """A machine with a disk of its own that gets `user_data` by NoCloud; its console is kept in `folder/console`."""

    def __init__(self, folder: Path, user_data: str) -> None:
        self._folder = folder
        (seed := folder / "seed").mkdir(parents=True)
        (seed / "user-data").write_text(user_data)
        (seed / "meta-data").write_text("instance-id: iid-atoll-test\nlocal-hostname: vm\n")
        (seed / "vendor-data").write_text("")
        self._disk = folder / "disk"
        subprocess.run(["cp", "--reflink=auto", "--sparse=always", debian.disk(), self._disk], check=True, timeout=60)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(seed)))
        self._serving = threading.Thread(target=self._server.serve_forever, args=(0.1,))
        self._serving.start()
        self._process: subprocess.Popen[bytes] | None = None

    def boot(self) -> None:
        """Switch it on, for the first time or again."""
        boot = debian.root() / "boot"
        command = [
            *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-nographic", "-no-reboot"),
            *("-machine", f"q35,accel={ACCELERATOR}", "-cpu", "max", "-smp", "2", "-m", "1024"),
            *("-kernel", str(next(boot.glob("vmlinuz-*"))), "-initrd", str(next(boot.glob("initrd.img-*")))),
            *("-append", "root=LABEL=atoll-root rw console=ttyS0 quiet systemd.show_status=no"),
            *("-drive", f"file={self._disk},format=raw,if=virtio,cache=unsafe"),
            *("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="),
            *("-device", "virtio-rng-pci", "-chardev", f"file,id=tty,path={self._folder / 'console'},append=on"),
            *("-serial", "chardev:tty"),
            *("-smbios", f"type=1,serial=ds=nocloud-net;s=http://{HOST}:{self._server.server_port}/"),
        ]
        with (self._folder / "qemu.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @property
    def on(self) -> bool:
        """Whether it has not switched itself off."""
        return self._process is not None and self._process.poll() is None

    def console(self) -> str:
        """Return what it printed, and what QEMU has to say."""
        written = [self._folder / name for name in ("console", "qemu.log")]
        return "\n".join(path.read_text(errors="replace") for path in written if path.exists())

    def close(self) -> None:
        """Pull the plug and throw the disk away."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._server.shutdown()
        self._serving.join()
        self._server.server_close()
        self._disk.unlink()


@contextmanager
def machine(folder: Path, user_data: str) -> Iterator[Vm]:
    """Make a machine for as long as the context lasts; skip where there is no QEMU."""
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not installed (Debian: qemu-system-x86)")
    vm = Vm(folder, user_data)
    try:
        yield vm
    finally:
        vm.close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass
