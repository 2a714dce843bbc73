"""The installation's own history as a trace: what its sessions asked for, when, and for how long they ran."""

from collections.abc import Iterable
from dataclasses import dataclass

from atoll import document
from atoll.client.views import SessionView
from atoll.errors import AtollError
from atoll.policy import tags
from atoll.session import SessionSpec
from federation.simulate.model import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The jobs, and how many sessions could not be taken in: `unstarted` ones never ran, `unread` make no sense here.

    `running` of the jobs still run: they count with what they have run so far.
    """

    jobs: tuple[Job, ...]
    unstarted: int = 0
    running: int = 0
    unread: int = 0


def of_sessions(views: Iterable[SessionView], *, since: float, now: float) -> History:
    """Return the sessions submitted since `since` as jobs that last as long as they ran; work that was lost is not."""
    jobs: list[Job] = []
    unstarted = running = unread = 0
    for view in views:
        if view.created_at < since:
            continue
        if view.started_at is None or (view.ended_at is not None and view.ended_at <= view.started_at):
            unstarted += 1
            continue
        try:
            spec = document.session_spec(view.spec)
        except AtollError:  # of a newer version, or what this one no longer allows
            unread += 1
            continue
        running += view.ended_at is None
        ran = (now if view.ended_at is None else view.ended_at) - view.started_at
        ran = max(ran, 0.001) + view.ran_s
        jobs.append(of_spec(spec, view.id, view.created_at, ran, project=view.project, owner=view.owner))
    jobs.sort(key=lambda job: (job.at, job.id))
    return History(jobs=tuple(jobs), unstarted=unstarted, running=running, unread=unread)


def of_spec(spec: SessionSpec, key: str, at: float, duration_s: float, *, project: str = "", owner: str = "") -> Job:
    """Return the job of a session that was submitted at `at` and ran for `duration_s`."""
    place, life = spec.placement, spec.lifetime
    return Job(
        id=key,
        at=at,
        duration_s=duration_s,
        request=spec.resources,
        nodes=spec.nodes,
        project=project,
        expected_s=life.expected,
        checkpoint=spec.checkpoint,
        spot=spec.cost.spot,
        priority=spec.priority,
        preemptible=spec.preemptible,
        protect=life.protect,
        protect_after_s=life.protect_after,
        sites=place.sites,
        groups=place.groups,
        labels=tuple(sorted(place.labels.items())),
        near=place.near,
        data=place.data,
        together=place.together,
        spread=place.spread,
        max_price=spec.cost.max_price,
        max_total=spec.cost.max_total,
        max_wait_s=life.max_wait,
        deadline_s=life.deadline,
        type=str(spec.type),
        owner=owner,
        tags=tags(spec.labels),
    )


def told(history: History) -> list[str]:
    """Return what a person should know about how the history was read."""
    lines = []
    if history.running:
        lines.append(f"{history.running} sessions still run: they count with what they have run so far")
    if history.unstarted:
        lines.append(f"{history.unstarted} sessions never ran, and are left out")
    if history.unread:
        lines.append(f"{history.unread} sessions could not be read, and are left out")
    return lines
