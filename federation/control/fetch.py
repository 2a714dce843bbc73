"""Fetches the agent's program: the part of join.sh and boot.sh that a machine's own Python runs, by itself.

Arguments: the control plane's URL, and the folder that gets `agent-lib`. All that is kept comes over TLS with a CA
whose hash the join token in `ATOLL_JOIN_TOKEN` holds; the token itself is not sent. Where something opens TLS on the
way, the same TLS goes inside a WebSocket. Any Python 3 must be able to read this: the control plane tells which it has
agents for.
"""

import base64
import hashlib
import http.client
import io
import json
import os
import re
import shutil
import socket
import ssl
import struct
import sys
import sysconfig
import tarfile
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

_NAME, _ALPN, _PATH = "control.atoll.internal", "atoll-join/1", "/v1/tunnel"
_TIMEOUT_S = 30


class _Refused(Exception):
    pass


class _Inside(io.RawIOBase):
    """TLS inside a WebSocket, as far as `http.client` needs a socket."""

    def __init__(self, outer: ssl.SSLSocket, context: ssl.SSLContext) -> None:
        self.outer, self.frames = outer, outer.makefile("rb")
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=_NAME)
        self.wait(self.tls.do_handshake)

    def wait(self, step: Any, *args: Any) -> Any:
        while True:
            try:
                return step(*args)
            except ssl.SSLWantReadError:
                self.push()
                self.pull()
            finally:
                self.push()

    def push(self) -> None:
        data = self.outgoing.read()
        if data:
            size = bytes([254]) + struct.pack("!H", len(data)) if len(data) > 125 else bytes([128 | len(data)])
            mask = os.urandom(4)
            masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
            self.outer.sendall(b"\x82" + size + mask + masked)

    def pull(self) -> None:
        kind, size = self.take(2)
        if size > 125:
            size = int.from_bytes(self.take(2 if size == 126 else 8), "big")
        if size > 1 << 20 or kind & 15 == 8:
            raise ConnectionError("the WebSocket ended")
        data = self.take(size)
        if kind & 15 in (0, 2):
            self.incoming.write(data)

    def take(self, size: int) -> bytes:
        data = self.frames.read(size)
        if len(data) < size:
            raise ConnectionError("the connection was cut")
        return data

    def sendall(self, data: bytes) -> None:
        self.wait(self.tls.write, data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.wait(self.tls.read, min(len(buffer), 16384))
        buffer[: len(data)] = data
        return len(data)

    def makefile(self, *_: Any) -> io.BufferedReader:
        return io.BufferedReader(self)

    def close(self) -> None:
        pass  # the answer is read after its connection was closed


def _connected(host: str, port: int) -> socket.socket:
    proxy = "" if host == "localhost" or proxy_bypass(host) else getproxies().get("https", "")
    if not proxy:
        return socket.create_connection((host, port), _TIMEOUT_S)
    via = urlsplit(proxy if "://" in proxy else "http://" + proxy)
    headers = {}
    if via.username is not None:
        user = unquote(via.username) + ":" + unquote(via.password or "")
        headers["Proxy-Authorization"] = "Basic " + base64.b64encode(user.encode()).decode()
    tunnel = http.client.HTTPConnection(via.hostname or "", via.port or 3128, timeout=_TIMEOUT_S)
    tunnel.set_tunnel(host, port, headers)
    tunnel.connect()
    found: socket.socket = tunnel.sock
    return found


def _direct(host: str, port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    secured = context.wrap_socket(_connected(host, port), server_hostname=_NAME)
    if secured.selected_alpn_protocol() != _ALPN:
        raise ssl.SSLError("another server than a control plane answers")
    return secured


def _inside(host: str, port: int, context: ssl.SSLContext) -> _Inside:
    outside = _context("")  # who opens the outside is believed nothing: the inside shows who it is
    outside.set_alpn_protocols(["http/1.1"])
    outer = outside.wrap_socket(_connected(host, port), server_hostname=host)
    shown = f"[{host}]" if ":" in host else host
    lines = [f"GET {_PATH} HTTP/1.1", "Host: " + (shown if port == 443 else f"{shown}:{port}")]
    lines += ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
    lines += ["Sec-WebSocket-Key: " + base64.b64encode(os.urandom(16)).decode(), "", ""]
    outer.sendall("\r\n".join(lines).encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = outer.recv(1)
        if not byte or len(head) > 16384:
            raise ConnectionError("no WebSocket was opened")
        head += byte
    if head.split(b" ")[1:2] != [b"101"]:
        raise ConnectionError("it answers " + head.split(b"\r\n")[0].decode("latin-1") + " instead of a WebSocket")
    return _Inside(outer, context)


def _reach(url: str, context: ssl.SSLContext) -> Any:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    try:
        return _direct(host, port, context)
    except (ssl.SSLError, ConnectionError) as error:
        try:
            return _inside(host, port, context)
        except OSError as second:
            raise OSError(f"{error}; inside a WebSocket: {second}") from second


def _ask(url: str, path: str, context: ssl.SSLContext) -> http.client.HTTPResponse:
    link = http.client.HTTPConnection(_NAME)
    link.sock = _reach(url, context)
    link.request("GET", path, headers={"Connection": "close"})
    answer = link.getresponse()
    if answer.status != 200:
        problem = json.loads(answer.read().decode())
        raise _Refused(problem.get("detail"), problem.get("hint"))
    return answer


def _context(ca: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca:
        context.load_verify_locations(cadata=ca)
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([_ALPN])
    return context


def _pinned(url: str, pin: bytes) -> str:
    """Return the CA that the token means: of what an unknown server shows nothing else is used."""
    shown = json.loads(_ask(url, "/v1/ca", _context("")).read().decode())["ca"]
    for block in re.findall("-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", shown, re.DOTALL):
        if hashlib.sha256(ssl.PEM_cert_to_DER_cert(block)).digest() == pin:
            return str(block)
    raise _Refused("its CA is not the one of the join token", "is this the URL, or is someone between you and it?")


def _fetch(url: str, home: str) -> None:
    token = os.environ["ATOLL_JOIN_TOKEN"][4:]
    pin = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))[4:36]
    tag = str(sysconfig.get_config_var("SOABI"))
    answer = _ask(url, "/v1/agent.tar.gz?tag=" + tag, _context(_pinned(url, pin)))
    lib, fresh = os.path.join(home, "agent-lib"), os.path.join(home, "agent-lib.new")  # noqa: PTH118
    shutil.rmtree(fresh, ignore_errors=True)
    safely: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(fileobj=answer, mode="r|gz") as pack:
        pack.extractall(fresh, **safely)  # noqa: S202
    shutil.rmtree(lib, ignore_errors=True)
    os.rename(fresh, lib)  # noqa: PTH104


def _main() -> None:
    url, home = sys.argv[1:]
    try:
        _fetch(url, home)
        return
    except _Refused as error:
        why, advice = error.args
    except (OSError, EOFError, ValueError, KeyError, http.client.HTTPException, tarfile.TarError) as error:
        why, advice = error, "check that this machine reaches it"
    sys.exit(f"atoll: CANNOT JOIN: no agent from {url}: {why}\n  hint: {advice}")


if __name__ == "__main__":
    _main()
