"""Debian's own cloud-init runs the user data of a real launch in a root of its own: no systemd, the fallback's way."""

import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clouds import debian
from tests.clouds.netns import Network, outbound_only
from tests.e2e.installation import Installation
from tests.e2e.launched import Launched, result
from tests.e2e.processes import family
from tests.e2e.waiting import until
from tests.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("cloud_init")]

STAGES = """
set -e
mount --make-rprivate /
mount -t overlay overlay -o lowerdir={root},upperdir={work}/upper,workdir={work}/work {work}/root
mount -t proc proc {work}/root/proc
mount -t sysfs sysfs {work}/root/sys
mount -t tmpfs tmpfs {work}/root/run
mount --bind /dev {work}/root/dev
cd {work}/root
pivot_root . mnt
umount -l /mnt
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
unset HOME
mkdir -p /run/cloud-init
cloud-init init --local
cloud-init init
cloud-init modules --mode=config || true  # it wants a locale that a minimal root has not
cloud-init modules --mode=final
echo "cloud-init is done"
exec sleep 100000
"""


class Container:
    """A Debian root in namespaces of its own, on an overlay whose upper layer is `folder/upper`."""

    def __init__(self, folder: Path, network: Network, user_data: str) -> None:
        self.folder = folder
        for name in ("upper", "work", "root"):
            (folder / name).mkdir(parents=True)
        # On a file system that may be an upper layer: this one may be an overlay itself.
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], check=True)
        for name in ("upper", "work", "root"):
            (folder / name).mkdir()
        seed = folder / "upper" / "var" / "lib" / "cloud" / "seed" / "nocloud"
        seed.mkdir(parents=True)
        (seed / "user-data").write_text(user_data)
        (seed / "meta-data").write_text("instance-id: iid-atoll-test\nlocal-hostname: debian\n")
        settings = folder / "upper" / "etc" / "cloud" / "cloud.cfg.d"
        settings.mkdir(parents=True)
        (settings / "99-test.cfg").write_text("datasource_list: [NoCloud]\nnetwork: {config: disabled}\n")
        script = STAGES.format(root=shlex.quote(str(debian.root())), work=shlex.quote(str(folder)))
        self._console = folder.parent / "console"
        with self._console.open("wb") as console:
            self._process = subprocess.Popen(
                [*network.prefix, "unshare", "--mount", "--pid", "--fork", "--uts", "sh", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )

    def console(self) -> str:
        return self._console.read_text(errors="replace")

    def close(self) -> None:
        """End it: the first process of a pid namespace takes all others with it."""
        for pid in reversed(family(self._process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        subprocess.run(["umount", "-l", str(self.folder)], check=True)


@pytest.fixture
def network() -> Iterator[Network]:
    with outbound_only() as network:
        yield network


def test_cloud_init_makes_an_agent_that_works(network: Network, tmp_path: Path) -> None:
    debian.root()
    port = free_port()
    with Installation(tmp_path, port=port, env={"ATOLL_SERVER__LISTEN": f"{network.host}:{port}"}) as installation:
        installation.up("--no-agent")
        launched = Launched(installation, tmp_path)
        first = launched.begin("sh", "-c", "cat /etc/hostname /etc/debian_version; cloud-init --version")
        container = Container(tmp_path / "container", network, launched.user_data())
        try:

            def story() -> str:
                return container.console()[-6000:] + installation.story()

            until(launched.connected, "the agent", within=120, story=story)
            printed = result(first, installation, 60).splitlines()
            assert printed[0] == "debian"
            assert printed[1].startswith("12.")
            until(lambda: "cloud-init is done" in container.console(), "cloud-init's end", within=60, story=story)
            upper = container.folder / "upper"
            made = {str(path.relative_to(upper)) for path in upper.rglob("*")}
            assert "var/lib/atoll/agent/agent.json" in made
            assert not [path for path in made if "systemd/system" in path and "atoll" in path], "no init to tell"
            assert "var/lib/cloud/instances/iid-atoll-test/sem/config_scripts_user" in made
        finally:
            container.close()
