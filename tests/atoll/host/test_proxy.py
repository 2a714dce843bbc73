"""Which proxy the environment names for whom, and how it is asked."""

import pytest

from atoll.errors import Invalid
from atoll.host.proxy import Proxy, proxy_for


@pytest.mark.parametrize(
    ("host", "no_proxy", "through"),
    [
        ("example.org", "", True),
        ("example.org", "example.org", False),
        ("a.example.org", "example.org", False),
        ("a.example.org", ".example.org", False),
        ("a.example.org", "*.example.org", False),
        ("badexample.org", "example.org", True),
        ("EXAMPLE.org", "x, Example.ORG", False),
        ("example.org", "example.org:443", False),
        ("example.org", "example.org:444", True),
        ("example.org", "*", False),
        ("10.1.2.3", "10.0.0.0/8", False),
        ("11.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.3", False),
        ("fd00::1", "fd00::/8", False),
        ("localhost", "", False),
        ("127.0.0.1", "", False),
        ("::1", "", False),
    ],
)
def test_which_hosts_go_through_the_proxy(host: str, no_proxy: str, through: bool) -> None:
    environ = {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": no_proxy}
    assert proxy_for(host, 443, environ) == (Proxy("proxy", 3128) if through else None)
    assert proxy_for(host, 443, {"NO_PROXY": no_proxy}) is None


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://proxy", Proxy("proxy", 3128)),
        ("proxy:8080", Proxy("proxy", 8080)),
        ("http://[fd00::1]:8080", Proxy("fd00::1", 8080)),
        ("http://ann@proxy", Proxy("proxy", 3128, "ann")),
        ("http://ann:a%3Ab%40c@proxy", Proxy("proxy", 3128, "ann", "a:b@c")),
    ],
)
def test_how_a_proxy_is_named(url: str, proxy: Proxy) -> None:
    assert proxy_for("example.org", 443, {"https_proxy": url}) == proxy


@pytest.mark.parametrize("url", ["https://proxy", "socks5://proxy", "http://", "http://proxy:port"])
def test_what_is_no_http_proxy_is_refused(url: str) -> None:
    with pytest.raises(Invalid, match="HTTPS_PROXY must look like"):
        proxy_for("example.org", 443, {"https_proxy": url})


def test_who_asks_is_told_to_the_proxy_alone() -> None:
    assert Proxy("proxy", 3128).headers == {}
    named = Proxy("proxy", 3128, "ann", "a:b@c")
    assert named.headers == {"Proxy-Authorization": "Basic YW5uOmE6YkBj"}
    assert "a:b@c" not in f"{named!r}{named.url}"
