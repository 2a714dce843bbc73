"""What a mesh may carry, where gateways may be, and which prefix a site gets."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.errors import Invalid
from atoll.mesh import (
    PRIVATE,
    End,
    base_network,
    check_apart,
    check_endpoint,
    check_subnet,
    check_versions,
    covered,
    mesh_name,
    site_network,
)


@pytest.mark.parametrize("text", ["10.20.0.0/16", "192.168.7.0/24", "172.16.0.0/12", "fd12::/48", "10.0.0.1/32"])
def test_private_networks_may_be_carried(text: str) -> None:
    assert check_subnet(text) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0.0.0.0/0", "private networks only"),
        ("::/0", "private networks only"),
        ("0.0.0.0/1", "private networks only"),
        ("8.0.0.0/7", "private networks only"),
        ("127.0.0.0/8", "private networks only"),
        ("169.254.169.254/32", "private networks only"),
        ("169.254.0.0/16", "private networks only"),
        ("fe80::/10", "private networks only"),
        ("::1/128", "private networks only"),
        ("224.0.0.0/4", "private networks only"),
        ("203.0.113.0/24", "private networks only"),
        ("::ffff:10.0.0.0/104", "private networks only"),
        ("100.64.0.0/10", "a cloud tells its machines secrets"),
        ("fd00:ec2::/32", "a cloud tells its machines secrets"),
        ("10.0.0.5/16", "host bits"),
        ("all of it", "not a network"),
        ("", "not a network"),
    ],
)
def test_others_may_not(text: str, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        check_subnet(text)


@pytest.mark.parametrize("text", ["site.example.com:51820", "203.0.113.7:1", "[2001:db8::7]:65535", "10.0.0.9:51820"])
def test_a_gateway_may_be_there(text: str) -> None:
    host, port = check_endpoint(text)
    assert text in (f"{host}:{port}", f"[{host}]:{port}")


@pytest.mark.parametrize(
    "text",
    [
        "site.example.com", "site.example.com:0", "site.example.com:65536", ":51820", "a b:1", "http://x:1", "x:port",
        "127.0.0.1:51820", "[::1]:51820", "169.254.169.254:80", "[fe80::1]:1", "0.0.0.0:1", "224.0.0.1:1",
        "[::ffff:127.0.0.1]:1", "100.100.100.200:80", "[fd00:ec2::254]:80",
    ],
)  # fmt: skip
def test_a_gateway_cannot_be_there(text: str) -> None:
    with pytest.raises(Invalid):
        check_endpoint(text)


def test_networks_of_two_sites_must_be_apart() -> None:
    check_apart([("a", "10.1.0.0/16"), ("a", "10.1.2.0/24"), ("b", "10.2.0.0/16"), ("b", "fd00::/64")])
    with pytest.raises(Invalid, match=r"10\.1\.2\.0/24 of b overlaps 10\.1\.0\.0/16 of a"):
        check_apart([("a", "10.1.0.0/16"), ("b", "10.1.2.0/24")])


def test_a_mesh_joins_two_sites_whichever_is_named_first() -> None:
    assert mesh_name("b", "a") == mesh_name("a", "b") == "a+b"
    with pytest.raises(Invalid, match="with itself"):
        mesh_name("a", "a")


def test_every_installation_has_a_range_of_its_own() -> None:
    one, two = base_network("", "atoll-1"), base_network("", "atoll-2")
    assert one != two
    assert {each.prefixlen for each in (one, two)} == {48}
    assert all(each.subnet_of(ip_network("fd00::/8")) for each in (one, two))  # type: ignore[arg-type]
    assert str(base_network("10.99.0.0/16", "x")) == "10.99.0.0/16"
    assert str(base_network("100.64.0.0/10", "x")) == "100.64.0.0/10"
    for text in ("10.99.0.0/22", "8.8.0.0/16", "nonsense"):
        with pytest.raises(Invalid):
            base_network(text, "x")


@given(st.sets(st.text("abcdefgh-", min_size=1, max_size=6), min_size=1, max_size=14), st.booleans())
def test_sites_have_prefixes_of_their_own(sites: set[str], four: bool) -> None:
    base = base_network("100.100.96.0/20" if four else "", "atoll-1")
    taken: list[str] = []
    for site in sorted(sites):
        taken.append(site_network(base, site, taken))
    found = [ip_network(each) for each in taken]
    assert len(set(found)) == len(found)
    for each in found:
        assert each.subnet_of(base)  # type: ignore[arg-type]
        assert each.prefixlen == (24 if four else 64)
        assert str(each) == check_subnet(str(each))
    assert site_network(base, "a", []) == site_network(base, "a", [])


def test_a_range_may_be_used_up() -> None:
    base = base_network("10.99.0.0/20")
    taken: list[str] = []
    for number in range(16):
        taken.append(site_network(base, f"s{number}", taken))
    with pytest.raises(Invalid, match="no prefix left"):
        site_network(base, "one-more", taken)


def test_a_subnet_needs_its_ip_version_in_the_mesh() -> None:
    check_versions(["10.1.0.0/16", "fd00::/64"], ["100.64.1.0/24", "fd01::/64"])
    with pytest.raises(Invalid, match="needs IPv4"):
        check_versions(["10.1.0.0/16"], ["fd01::/64"])


def test_an_end_has_an_address_and_what_lies_behind_it() -> None:
    end = End(site="a", networks=("fd00:0:0:1::/64", "100.64.1.0/24"), subnets=("10.1.0.0/16",))
    assert end.addresses == ("fd00:0:0:1::1", "100.64.1.1")
    assert end.reached == ("fd00:0:0:1::/64", "100.64.1.0/24", "10.1.0.0/16")
    assert covered("10.1.2.0/24", end.reached)
    assert not covered("10.0.0.0/8", end.reached)
    assert not covered("fd00::/63", end.reached)
    assert len(PRIVATE) == 5
