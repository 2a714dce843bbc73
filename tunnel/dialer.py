"""How an agent reaches its control plane: outbound TLS connections, through an HTTP proxy if need be."""

import asyncio
import base64
import ipaddress
import os
import socket
from collections.abc import Callable, Mapping
from typing import Protocol
from urllib.parse import SplitResult, unquote, urlsplit

from tunnel.buffered import Buffered
from tunnel.identity import AgentIdentity
from tunnel.wire import CONTROL_NAME

DIAL_TIMEOUT_S = 10.0
"""Most seconds a dial may take, name lookup, proxy and TLS handshake included."""
_REPLY_LIMIT = 16 * 1024


class Dialer(Protocol):
    """Makes the connections that a `Link` or a data connection's `AgentLine` runs on."""

    async def dial(self, make: Callable[[], asyncio.Protocol]) -> None:
        """Connect and hand the transport to `make()`; returns when `connection_made` was called.

        Raises `OSError` (also `ssl.SSLError` and `TimeoutError`, which are kinds of it).
        """
        ...


class TlsDialer:
    """Dials `url` (`https://host[:port]`) with an agent's certificate, or (`data`) without, for data connections.

    `HTTPS_PROXY`/`https_proxy` and `NO_PROXY`/`no_proxy` of `environ` are honoured: the connection then goes
    through the proxy's CONNECT, with basic auth where the proxy's URL holds a user.
    """

    def __init__(
        self, url: str, identity: AgentIdentity, environ: Mapping[str, str] = os.environ, *, data: bool = False
    ) -> None:
        self._host, self._port = host_port(url)
        self._context = identity.data_context if data else identity.context
        self._environ = environ

    async def dial(self, make: Callable[[], asyncio.Protocol]) -> None:
        """Connect within `DIAL_TIMEOUT_S`. The certificate is read anew each time: it may have been renewed."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(DIAL_TIMEOUT_S):
            connection = await connect(self._host, self._port, self._environ)
            try:
                context = self._context()
            except BaseException:
                connection.close()
                raise
            await loop.create_connection(
                lambda: Buffered(make()), sock=connection, ssl=context, server_hostname=CONTROL_NAME
            )


def host_port(url: str) -> tuple[str, int]:
    """Return the host and port an `https` URL (or a bare `host:port`) means; raise `OSError` where it has none."""
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        port = parts.port or (80 if parts.scheme == "http" else 443)
    except ValueError:
        parts, port = SplitResult("", "", "", "", ""), 0
    if not parts.hostname:
        raise OSError(f"{url!r} is not the URL of a control plane")
    return parts.hostname, port


def proxy_for(host: str, port: int, environ: Mapping[str, str]) -> str:
    """Return the URL of the proxy to reach `host` through, "" for none.

    NO_PROXY is a comma list of `*`, host names (which cover their subdomains), addresses and networks
    (`10.0.0.0/8`), each but a network with an optional `:port`. Loopback never goes through a proxy.
    """
    proxy = environ.get("https_proxy") or environ.get("HTTPS_PROXY") or ""
    excepted = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if not proxy or host == "localhost" or _is_loopback(host):
        return ""
    rules = (rule.strip().lower() for rule in excepted.split(","))
    return "" if any(rule and _covers(rule, host.lower(), port) for rule in rules) else proxy


async def connect(host: str, port: int, environ: Mapping[str, str]) -> socket.socket:
    """Return a connected, non-blocking TCP socket to `host`, tunnelled through a proxy where one is set."""
    proxy = proxy_for(host, port, environ)
    if not proxy:
        return await _connect_tcp(host, port)
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if parts.scheme != "http" or not parts.hostname:
        raise OSError("HTTPS_PROXY must look like http://[user:password@]host:port")
    connection = await _connect_tcp(parts.hostname, parts.port or 3128)
    try:
        await _ask_proxy(connection, host, port, parts)
    except BaseException:
        connection.close()
        raise
    return connection


async def _connect_tcp(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    failure: OSError = OSError(f"no address for {host}")
    for family, kind, proto, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        connection = socket.socket(family, kind, proto)
        connection.setblocking(False)
        try:
            await loop.sock_connect(connection, address)
        except OSError as error:
            connection.close()
            failure = error
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise failure


async def _ask_proxy(connection: socket.socket, host: str, port: int, proxy: SplitResult) -> None:
    loop = asyncio.get_running_loop()
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.username is not None:
        user = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
        lines.append("Proxy-Authorization: Basic " + base64.b64encode(user.encode()).decode())
    await loop.sock_sendall(connection, ("\r\n".join(lines) + "\r\n\r\n").encode())
    reply = b""
    while not reply.endswith(b"\r\n\r\n"):
        # The far end says nothing before our ClientHello, so nothing but the reply can be read here.
        part = await loop.sock_recv(connection, 4096)
        reply += part
        if not part or len(reply) > _REPLY_LIMIT:
            raise ConnectionError(f"the proxy {proxy.hostname} answered CONNECT with no HTTP reply")
    status = reply.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
    if len(status) < 2 or status[1] != "200":
        raise ConnectionError(f"the proxy {proxy.hostname} refused CONNECT to {target}: {' '.join(status[1:])}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _covers(rule: str, host: str, port: int) -> bool:
    if rule == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(rule, strict=False)
    except ValueError:
        name, colon, wanted = rule.rpartition(":")
        if colon and wanted.isdecimal():
            if int(wanted) != port:
                return False
            rule = name
        rule = rule.lstrip("*").lstrip(".")
        return host == rule or host.endswith(f".{rule}")
