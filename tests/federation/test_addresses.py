"""How an installation says that it is reached, and which settings of apps go together."""

import pytest

from atoll.errors import Invalid
from atoll.host.config import ServerConfig
from federation.main import addresses


def config(**environ: str) -> ServerConfig:
    return ServerConfig.load(environ={f"ATOLL_{name}": value for name, value in environ.items()})


def test_apps_have_names_of_their_own_unless_told() -> None:
    plain = addresses(config(), "127.0.0.1", 8700)
    assert plain.app_url("web", "s-1") == "http://web--s-1.localhost:8700/"
    below = addresses(config(APPS__PATH_MODE="true"), "127.0.0.1", 8700)
    assert below.app_url("web", "s-1") == "http://localhost:8700/apps/s-1/web/"
    assert not below.is_ours("localhost:8700")
    out = config(
        SERVER__PUBLIC_URL="https://fed.example.com", SERVER__APPS_DOMAIN="apps.example.com", APPS__PATH_MODE="true"
    )
    assert addresses(out, "0.0.0.0", 443).app_url("web", "s-1") == "https://apps.example.com/apps/s-1/web/"


@pytest.mark.parametrize(
    ("host", "environ"),
    [
        ("0.0.0.0", {"SERVER__PUBLIC_URL": "https://fed.example.com", "SERVER__APPS_DOMAIN": "fed.example.com"}),
        ("localhost", {}),
    ],
)
def test_the_pages_name_is_not_given_to_apps(host: str, environ: dict[str, str]) -> None:
    with pytest.raises(Invalid, match="needs a name that the pages do not have") as refused:
        addresses(config(APPS__PATH_MODE="true", **environ), host, 443)
    assert "server.apps_domain" in refused.value.hint
    addresses(config(**environ), host, 443)
