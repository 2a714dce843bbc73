"""`make demo-aws`: the demo's sessions burst from two local cores to EC2 as moto shows it; its machines are real.

`python -m tests.clouds.demo [aws|gcp|azure]`. What the cloud's server is given as user data is what runs, as
processes of this machine, joins the control plane, works, and is terminated when nothing is left to do.
"""

import argparse
import signal
import sys
import time
from collections import Counter

from atoll.cli.demo.show import Play
from atoll.cli.demo.stage import Stage
from atoll.cli.demo.work import Work, batch
from atoll.cli.output import paint
from atoll.client.stream import LogChunk
from atoll.client.views import SessionView
from atoll.document import group, provider
from atoll.errors import AtollError
from tests.clouds import every
from tests.clouds.harness import Harness

SESSIONS = 15


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cloud", nargs="?", default="aws", choices=["aws", "gcp", "azure"])
    name = parser.parse_args().cloud
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    stage = Stage()
    cloud = every.harness(name, stage.home / "cloud")
    cloud.start()
    try:
        wrong = _perform(stage, cloud)
        stage.down()
    except (AtollError, OSError) as error:
        wrong = [str(error)]
    finally:
        cloud.stop()
        stage.kill()
    if left := cloud.leftovers():
        wrong.append(f"processes of machines are left: {left}")
    for problem in wrong:
        print(f"{paint('FAILED', 'red')}  {problem}", file=sys.stderr)
    if wrong:
        print(f"logs and database: {stage.home}", file=sys.stderr)
        return 1
    stage.remove()
    print(paint("all held: nothing runs, nothing is left at the cloud", "green"))
    return 0


def _perform(stage: Stage, cloud: Harness) -> list[str]:
    """Play it; return what did not hold."""
    the_play = Play(stage.up())
    client, account = the_play.client, cloud.provider()
    client.create(provider({"name": account.name, "type": account.kind, "settings": dict(account.settings)}))
    listed = client.update_prices(account.name)
    print(paint(f"{account.kind}: {listed.source} tells {listed.count} prices", "bold"))
    rules = {"scale_down": {"idle": "3s", "cooldown": "3s"}, "boot": "60s", "labels": {"team": "demo"}}
    client.create(group({"name": "burst", "provider": account.name, "site": "cloud", "size": {"max": 3}, **rules}))
    print(paint(f"{SESSIONS} sessions come at once; two fit on this machine", "bold"), flush=True)
    works = [batch("a", number, 4.0) for number in range(SESSIONS)]
    the_play.submit(works)
    ended = ("succeeded", "failed", "cancelled", "expired")
    the_play.until(lambda: all(view.state in ended for view in the_play.sessions.values()), "all sessions end")
    print(paint("all sessions have ended; the group scales to zero", "bold"), flush=True)
    the_play.until(lambda: all(row.state == "gone" for row in the_play.instances.values()), "all instances are gone")
    return _verify(the_play, cloud, works)


def _verify(the_play: Play, cloud: Harness, works: list[Work]) -> list[str]:
    views = list(the_play.sessions.values())
    wrong = [f"{view.name}: {view.state}, {printed[-40:]!r}" for view in views if (printed := _bad(the_play, view))]
    places = Counter(view.site for view in views)
    if not places["cloud"]:
        wrong.append(f"no session ran at the cloud: {dict(places)}")
    seen = cloud.inventory()
    live = [each.provider_id for each in seen if each.state != "ended"]
    if live:
        wrong.append(f"machines are left at the cloud: {live}")
    if the_play.client.sweep(cloud.provider().name, dry_run=True):
        wrong.append("cloud and records do not agree")
    usage = the_play.client.usage()
    print(
        f"\n{len(views)} sessions: {', '.join(f'{count} at {site}' for site, count in places.items())}; "
        f"{len(the_play.instances)} machines cost {usage.session_cost:.6f} USD, "
        f"on demand {usage.on_demand_cost:.6f}; {time.monotonic() - the_play.begun:.0f} s"
    )
    return wrong


def _bad(the_play: Play, view: SessionView) -> str:
    """Return what a session printed when that is not its right result."""
    chunks = the_play.client.follow(view.id, channel="out", stay=False)
    printed = b"".join(news.data for news in chunks if isinstance(news, LogChunk)).decode().strip()
    return "" if printed == the_play.works[view.id].expected and view.state == "succeeded" else printed or view.message


if __name__ == "__main__":
    sys.exit(main())
