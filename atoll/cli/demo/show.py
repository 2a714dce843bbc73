"""The demo's play: two pretend clouds, 33 sessions, a timeline, and a verdict on everything it claims."""

import http.client
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from atoll.cli.demo import work
from atoll.cli.demo.report import Claim, final_table, timeline_line
from atoll.cli.demo.stage import Stage
from atoll.cli.demo.work import Work
from atoll.cli.output import money, paint
from atoll.client.stream import LogChunk
from atoll.client.synchronous import Client
from atoll.client.views import EventView, InstanceView, SessionView
from atoll.document import group, provider
from atoll.errors import AtollError, Unavailable
from atoll.site import Site
from atoll.states import ENDED

LIMIT_S = 108.0
"""All sessions must have ended and all instances be gone by then; the rest of the 120 s is for the way down."""


@dataclass(slots=True)
class Play:
    """What is known while the play runs. `said` are all events, in order."""

    client: Client
    works: dict[str, Work] = field(default_factory=dict)
    sessions: dict[str, SessionView] = field(default_factory=dict)
    instances: dict[str, InstanceView] = field(default_factory=dict)
    said: list[EventView] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)
    answer: str = ""
    at_zero: bool = False

    @property
    def elapsed(self) -> float:
        """Seconds since the play began."""
        return time.monotonic() - self.begun

    def submit(self, works: list[Work]) -> None:
        """Submit sessions."""
        for each in works:
            view = self.client.submit(each.spec)[0]
            self.works[view.id] = each
            self.sessions[view.id] = view

    def look(self) -> None:
        """Read what changed, and print it."""
        while news := self.client.events(since=self.said[-1].rev if self.said else 0):
            self.said += news
            for event in news:
                if line := timeline_line(event, self.elapsed, {i: s.name for i, s in self.sessions.items()}):
                    print(line, flush=True)
        for view in self.client.sessions():
            self.sessions[view.id] = view
        for machine in self.client.instances(live=False):
            self.instances[machine.id] = machine

    def until(self, holds: Any, what: str) -> None:
        """Look until `holds()`; raise `Unavailable` when the time is over."""
        while True:
            self.look()
            if holds():
                return
            if self.elapsed > LIMIT_S:
                raise Unavailable(f"after {LIMIT_S:g} s still waiting: {what}", hint=self.state())
            time.sleep(0.4)

    def state(self) -> str:
        """Return what has not ended."""
        open_ = [f"{s.name} {s.state} {s.reason}" for s in self.sessions.values() if s.state not in ENDED]
        live = [f"{i.id} {i.state} {i.reason}" for i in self.instances.values() if i.state != "gone"]
        return "; ".join([*open_[:6], *live[:6]])

    def named(self, name: str) -> SessionView:
        """Return a session by name."""
        return next(view for view in self.sessions.values() if view.name.startswith(name))


def play(*, keep: bool) -> int:
    """Run the demo; return 0 only if everything held, and leave no process and no file behind then."""
    stage = Stage()
    claims: list[Claim] = []
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both ways of ending it leave nothing behind
    try:
        print(paint("starting a control plane and an agent with 2 cores", "bold"), flush=True)
        began = time.monotonic()
        the_play = Play(stage.up(), begun=began)
        perform(the_play, stage)
        claims += verify(the_play)
        print("\n" + final_table(the_play.client, the_play.sessions, the_play.instances))
        stage.down()
        left = stage.wait_empty(5)
        claims.append(Claim("no process is left", not left, " ".join(map(str, left))))
    except (AtollError, OSError) as error:
        hint = f" ({error.hint})" if isinstance(error, AtollError) and error.hint else ""
        claims.append(Claim("the play ran to its end", False, f"{error}{hint}"))
    except KeyboardInterrupt:
        stage.kill()
        stage.remove()
        raise
    stage.kill()
    return _curtain(stage, claims, keep=keep)


def perform(the_play: Play, stage: Stage) -> None:
    """The plot, from the first session until no instance is left."""
    client = the_play.client
    _set_up(client)
    protected, gang, app = work.specials()
    print(paint("15 sessions come at once, with a protected one, a gang of 2 and an app", "bold"), flush=True)
    the_play.submit([protected, app, gang, *work.first_wave()])
    the_play.until(lambda: the_play.named("app").state == "running", "the app runs")
    the_play.answer = fetch(client, the_play.named("app").id, "/12")
    print(
        f"{the_play.elapsed:6.1f}s  app      answers through the gateway: 12 squared is {the_play.answer}", flush=True
    )
    the_play.until(lambda: the_play.elapsed > 12, "the spot site has capacity")
    fetch(client, the_play.named("app").id, "/done")
    print(paint("15 more come; 4 of them only want the spot site", "bold"), flush=True)
    the_play.submit(work.second_wave())
    the_play.until(lambda: bool(_hit(the_play)), "the spot site is at work")
    stage.reclaim("cheap", _hit(the_play), notice=2)
    print(paint("the spot site takes a machine back that is at work, with 2 s notice", "bold"), flush=True)
    the_play.until(lambda: all(s.state in ENDED for s in the_play.sessions.values()), "all sessions end")
    print(paint("all sessions have ended; the groups scale to zero", "bold"), flush=True)
    the_play.until(lambda: all(i.state == "gone" for i in the_play.instances.values()), "all instances are gone")
    the_play.at_zero = True


def _set_up(client: Client) -> None:
    for name in ("sim-spot", "sim-dear"):
        client.create(Site(name=name))
    cheap = {
        "shapes": [{"name": "c2", "cpu": 2, "memory": "1GiB", "spot_price": 0.018}],
        "boot_s": 1,
        "faults": {"no_capacity": {"spot": True, "for_s": 7}},
    }
    dear = {"shapes": [{"name": "c2", "cpu": 2, "memory": "1GiB", "price": 0.048}], "boot_s": 1}
    client.create(provider({"name": "cheap", "type": "sim", "settings": cheap}))
    client.create(provider({"name": "dear", "type": "sim", "settings": dear}))
    rules: dict[str, Any] = {"scale_down": {"idle": "3s", "cooldown": "3s"}, "boot": "40s", "lease": "60s"}
    rules["max_life"] = "5m"
    client.create(
        group({"name": "spot", "provider": "cheap", "site": "sim-spot", "spot": True, "size": {"max": 3}, **rules})
    )
    client.create(
        group({"name": "on-demand", "provider": "dear", "site": "sim-dear", "spot": False, "size": {"max": 3}, **rules})
    )


def _hit(the_play: Play) -> str:
    """Return the provider's id of a machine on which a session runs that only wants the spot site; "" if none yet."""
    agents = [
        m.agent for s in the_play.sessions.values() if s.name[:2] == "c-" and s.state == "running" for m in s.members
    ]
    machines = (i.provider_id for i in the_play.instances.values() if i.agent in agents and i.state == "joined")
    return next(machines, "")


def fetch(client: Client, session: str, path: str) -> str:
    """Return what the app answers through the gateway, asked for by its host name."""
    link = urlsplit(client.app_link(session, "squares"))
    connection = http.client.HTTPConnection(client.address.host, client.address.port, timeout=15)
    try:
        headers = {"Host": link.netloc, "Authorization": f"Bearer {client.token}"}
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        text = response.read().decode(errors="replace")
        return text if response.status == 200 else f"HTTP {response.status}: {text[:200]}"
    finally:
        connection.close()


def verify(the_play: Play) -> list[Claim]:
    """Return every claim of the demo with whether it held."""
    sessions = list(the_play.sessions.values())
    sites = {view.site for view in sessions}
    wrong = [f"{view.name}: {why}" for view in sessions if (why := _wrong(the_play, view))]
    gang, protected = the_play.named("gang"), the_play.named("protected")
    refused = [event for event in the_play.said if event.reason == "NO_CAPACITY"]
    again = [view for view in sessions if view.interruptions and view.state == "succeeded"]
    usage = the_play.client.usage()
    found = the_play.client.sweep("cheap", dry_run=True) + the_play.client.sweep("dear", dry_run=True)
    hosts = {member.agent for member in gang.members}
    return [
        Claim("30 sessions or more, each with its right result", len(sessions) >= 30 and not wrong, "; ".join(wrong)),
        Claim("the local agent and both sites ran some", {"sim-spot", "sim-dear"} < sites, " ".join(sorted(sites))),
        Claim("the spot site had no capacity at first", bool(refused), "no event says NO_CAPACITY"),
        Claim("a reclaimed session was queued again and succeeded", bool(again), "none was interrupted"),
        Claim("the gang ran on 2 agents", len(hosts) == 2, " ".join(hosts)),
        Claim("the protected session kept its agent", not protected.interruptions, f"{protected.interruptions}"),
        Claim("the app answered through the gateway", the_play.answer == "144", the_play.answer),
        Claim("the groups grew", len(the_play.instances) >= 3, f"{len(the_play.instances)} instances"),
        Claim("the groups went to zero", the_play.at_zero, the_play.state()),
        Claim("the clouds hold nothing that we do not know", not found, str([finding.finding for finding in found])),
        Claim(
            "it cost less than everything on demand",
            usage.session_cost < usage.on_demand_cost,
            f"{money(usage.session_cost)} against {money(usage.on_demand_cost)}",
        ),
    ]


def _wrong(the_play: Play, view: SessionView) -> str:
    if view.state != "succeeded":
        return f"{view.state} {view.reason} {view.message}"
    for rank in range(len(view.members)):
        chunks = the_play.client.follow(view.id, channel="out", rank=rank, stay=False)
        printed = b"".join(news.data for news in chunks if isinstance(news, LogChunk)).decode().strip()
        expected = work.gang_part(rank) if rank else the_play.works[view.id].expected
        if printed != expected:
            return f"rank {rank} printed {printed[-40:]!r}, not {expected[-40:]!r}"
    return ""


def _curtain(stage: Stage, claims: list[Claim], *, keep: bool) -> int:
    held = all(claim.held for claim in claims)
    if held and not keep:
        claims.append(Claim("no file is left", stage.remove(), str(stage.home)))
        held = claims[-1].held
    for claim in claims:
        print(f"{paint('ok', 'green') if claim.held else paint('FAILED', 'red'):>6}  {claim.text}", end="")
        print("" if claim.held or not claim.otherwise else f": {claim.otherwise}")
    if not held or keep:
        print(f"logs and database: {stage.home}", file=sys.stderr)
    return 0 if held else 125
