"""`[clouds] proxy` in the server's configuration: no cloud is called around it."""

import json
from pathlib import Path

import pytest
import yaml

from tests.clouds.every import harness
from tests.clouds.proxy import Proxy
from tests.e2e.burst import installation

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("cloud-gcp")]


def test_the_servers_proxy_is_every_drivers(tmp_path: Path) -> None:
    cloud = harness("gcp", tmp_path / "cloud")
    cloud.start()
    proxy = Proxy()
    provider = cloud.provider()
    document = {"kind": "provider", "name": provider.name, "type": provider.kind, "settings": dict(provider.settings)}
    path = tmp_path / "provider.yaml"
    path.write_text(yaml.safe_dump(document))
    try:
        with installation(tmp_path, None, {"ATOLL_CLOUDS__PROXY": proxy.url}) as at:
            at.up("--no-agent")
            at.atoll("apply", "-f", str(path))
            asked = len(proxy.asked)
            assert json.loads(at.atoll("provider", "shapes", provider.name, "-o", "json", timeout=90))
            at.atoll("prices", "update", provider.name, timeout=90)
        assert len(proxy.asked) > asked
        assert {f"http://{each}" for each in proxy.asked} == {provider.settings["endpoint"]}
    finally:
        proxy.close()
        cloud.stop()
