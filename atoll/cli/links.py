"""`atoll link`: agents' links as they are, and pings over them."""

import argparse
import socket
import time

from atoll import duration
from atoll.cli.connect import client
from atoll.cli.output import Columns, ago, paint, show, size, table
from atoll.cli.parser import Parser, Run, run_verb
from atoll.client.linkviews import LinkView, PingView
from atoll.errors import Invalid
from atoll.host.config import split_listen
from atoll.host.system import SystemClock

DIRECT_S = 1.0
"""Longest wait for an agent's own door, here and when a port is forwarded."""


def link(parser: Parser) -> Run:
    """Set up `atoll link`."""
    add = parser.verbs()
    listing = add("list", _list, "list agents' links", "atoll link list -o json")
    listing.add_argument("--site", default="", help="of agents of this site")
    listing.add_argument("--group", default="", help="of agents of this group")
    listing.output()
    ping = add("ping", _ping, "measure the way to an agent, over each lane", "atoll link ping ws-alice --count 20")
    ping.add_argument("agent", help="id or name")
    ping.add_argument("-c", "--count", type=int, default=5, metavar="N", help="pings over each way (5)")
    ping.output()
    return run_verb


def _list(args: argparse.Namespace) -> int:
    found = client(args).links(site=args.site, group=args.group)
    show(found, args.output, LINKS, "no agents; `atoll token create --site NAME` tells how one joins")
    return 0


def _ping(args: argparse.Namespace) -> int:
    found = client(args).ping(args.agent, count=args.count)
    if args.output == "table":
        print(report(found), end="")
        if found.link.direct:
            print(f"users may reach it directly at {found.link.direct}: {_from_here(found.link.direct)}")
    else:
        show(found, args.output)
    return 0


def report(found: PingView) -> str:
    """Return what a ping found, as a person would tell it."""
    link, now = found.link, SystemClock().now()
    way = f"through the proxy {link.proxy}" if link.proxy else "no proxy"
    lines = [
        f"{paint(link.name, 'bold')} is connected for {ago(link.since, now)}; protocol {link.protocol}, {way}; "
        f"{_drops(link, now)}\n",
        *(f"  {f'{each.use} streams':<15} {each.lane:<5} {each.why}\n" for each in found.choices),
        f"  users' streams come in at {', '.join(link.doors)}\n",
        "\n" + table(found.pings, PINGS),
        *(f"  {each.way}: {each.error}\n" for each in found.pings if each.error),
        "\n" + table(link.lanes, LANES),
        f"data connections: {link.data.ready} ready, {link.data.in_use} in use, {link.data.pending} asked for; "
        f"{size(link.buffered)} wait to be sent\n",
    ]
    return "".join(lines)


def _from_here(address: str) -> str:
    """Return how long it takes from this machine to an agent's own door, one round trip, or why there is no way."""
    try:
        host, port = split_listen(address)
        began = time.perf_counter()
        socket.create_connection((host, port), timeout=DIRECT_S).close()
    except (OSError, Invalid) as error:
        why = getattr(error, "strerror", "") or str(error) or "no answer"
        return f"not from here ({why.lower()}), so by a relay"
    return f"{_milliseconds((time.perf_counter() - began) * 1000)} from here, without a relay"


def _drops(link: LinkView, now: float) -> str:
    if not link.drops:
        return "never lost since the control plane began"
    times = "once" if link.drops == 1 else f"{link.drops} times"
    return f"lost {times}, last {ago(link.dropped_at, now)} ago: {link.drop_reason}"


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}ms" if value < 10 else f"{value:.1f}ms"


def _seen(link: LinkView) -> str:
    if link.connected:
        return "now"
    return f"{duration.rough(link.silent_s)} ago" if link.dropped_at else "not since the control plane began"


def _bytes(link: LinkView, way: str) -> str:
    return size(sum(getattr(lane, way) for lane in link.lanes))


_WAYS = {"link": "link", "mux": "stream on mux", "data": "stream on data"}
LINKS: Columns = {
    "NAME": lambda link: link.name,
    "LINK": lambda link: "up" if link.connected else "down",
    "RTT": lambda link: _milliseconds(link.rtt_ms),
    "UP": lambda link: ago(link.since, SystemClock().now()) if link.connected else "",
    "DROPS": lambda link: str(link.drops),
    "SEEN": _seen,
    "PROXY": lambda link: link.proxy,
    "STREAMS": lambda link: str(sum(lane.streams for lane in link.lanes)),
    "DATA": lambda link: f"{link.data.ready + link.data.in_use}",
    "RESUMED": lambda link: str(sum(lane.resumes for lane in link.lanes)),
    "REFUSED": lambda link: str(sum(sum(lane.refused.values()) for lane in link.lanes)),
    "IN": lambda link: _bytes(link, "received"),
    "OUT": lambda link: _bytes(link, "sent"),
    "SITE": lambda link: link.site,
}
PINGS: Columns = {
    "WAY": lambda pings: _WAYS[pings.way],
    "PINGS": lambda pings: str(pings.sent),
    "LOST": lambda pings: str(pings.lost),
    "MIN": lambda pings: _milliseconds(pings.min_ms),
    "MEDIAN": lambda pings: _milliseconds(pings.median_ms),
    "MAX": lambda pings: _milliseconds(pings.max_ms),
}
LANES: Columns = {
    "LANE": lambda lane: lane.lane,
    "STREAMS": lambda lane: str(lane.streams),
    "OPENED": lambda lane: str(lane.opens),
    "RESUMED": lambda lane: str(lane.resumes),
    "REFUSED": lambda lane: ", ".join(f"{count} {reason}" for reason, count in sorted(lane.refused.items())) or "0",
    "IN": lambda lane: size(lane.received),
    "OUT": lambda lane: size(lane.sent),
}
