"""The pages: overview, sessions and one session, rendered here and kept current by `static/live.js`."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from atoll.client import views as api
from atoll.errors import AtollError, NotFound, Unauthorized
from atoll.policy import COMMON
from atoll.states import ENDED, SessionState
from federation.api import observe, problems, views
from federation.api.apps import link_to
from federation.api.auth import PAGE_COOKIE, Caller, check_entry, cookie_name, may_enter, set_cookie
from federation.api.grants import COOKIE_TTL_S, Purpose
from federation.api.route import Services
from federation.web import words

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
STATIC = {"style.css": "text/css", "live.js": "text/javascript", "icon.svg": "image/svg+xml"}
SHOWN = 200


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a site: `percent` of it is in use; `text` says the same in numbers."""

    label: str
    percent: float
    text: str


class Pages:
    """Serves the pages to logged-in browsers, and the login link to the others."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[web.RouteDef]:
        """Return the pages' routes."""
        return [
            web.get("/", self._guard(self.overview)),
            web.get("/sessions", self._guard(self.sessions)),
            web.get("/sessions/{ref}", self._guard(self.session)),
            web.post("/sessions/{ref}/stop", self._guard(self.stop)),
            web.get("/sessions/{ref}/apps/{app}", self._guard(self.open_app)),
            web.get("/login", self.login),
            web.post("/logout", self._guard(self.logout)),
            web.get("/static/{name}", self.static),
        ]

    async def overview(self, _request: web.Request, caller: Caller) -> web.StreamResponse:
        """Free and used slots by site, the queue with its oldest wait, spend, links down, groups."""
        control = self._services.control
        fleet = await observe.fleet(self._services)
        rows = await control.sessions.list(COMMON, limit=SHOWN)
        recent = await observe.sessions(self._services, rows[:12], caller)
        usage = views.usage(await control.usage.summary(0.0))
        here = [each for each in fleet.agents if each.ended_at is None]
        return self._page(
            "overview.html",
            title="Overview",
            caller=caller,
            status=views.status(await control.status()),
            sites=[(site, bars(site)) for site in await observe.sites(self._services, fleet)],
            groups=await observe.groups(self._services, fleet),
            sessions=recent,
            usage=usage,
            down=[each for each in here if not each.connected],
        )

    async def sessions(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """All sessions, newest first; `?state=` narrows."""
        state = request.query.get("state", "")
        states = (SessionState(state),) if state in list(SessionState) else ()
        rows = await self._services.control.sessions.list(COMMON, states=states, limit=SHOWN)
        found = await observe.sessions(self._services, rows, caller)
        status = views.status(await self._services.control.status())
        return self._page(
            "sessions.html", title="Sessions", caller=caller, sessions=found, status=status, state=state, shown=SHOWN
        )

    async def session(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """One session: how it came to its state, why, its output, apps and cost."""
        row = await self._services.control.sessions.get(COMMON, request.match_info["ref"])
        view = await observe.session(self._services, row, caller)
        door = self._services.door
        now = await door.with_roles(caller)
        why = views.why(await self._services.control.why.session(COMMON, row.id))
        return self._page(
            "session.html",
            title=view.name,
            caller=caller,
            session=view,
            why=why,
            ended=row.state in ENDED,
            mine=may_enter(now, row),
            apps=[app for app in row.spec.apps if may_enter(now, row, app) or door.is_public(row, app)],
            status=views.status(await self._services.control.status()),
        )

    async def stop(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """Stop a session, then show it."""
        sessions = self._services.control.sessions
        row = await sessions.get(COMMON, request.match_info["ref"])
        check_entry(await self._services.door.with_roles(caller), row)
        row = await sessions.stop(COMMON, row.id, by=caller.owner)
        raise web.HTTPSeeOther(f"/sessions/{row.id}")

    async def open_app(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """Send the browser to an app of a session with a fresh grant."""
        row = await self._services.control.sessions.get(COMMON, request.match_info["ref"])
        now = await self._services.door.as_of_now(caller)
        raise web.HTTPSeeOther(link_to(self._services, now, row, request.match_info["app"]))

    async def login(self, request: web.Request) -> web.StreamResponse:
        """Turn a login link into the page's cookie; without a grant, say how to get one."""
        try:
            if not self._services.address.is_ours(request.host):
                raise NotFound(f"{request.host} is not a name of this installation", hint="set server.public_url")
            owner = self._services.door.grants.check(request.query.get("grant", ""), Purpose.LOGIN).owner
        except AtollError as error:
            return self._page("login.html", title="Log in", status_code=error.status, error=error)
        answer = web.Response(status=303, headers={**HEADERS, "Location": "/"})
        grant = self._services.door.grants.issue(Purpose.PAGE, owner, ttl_s=COOKIE_TTL_S)
        set_cookie(answer, request, PAGE_COOKIE, grant, COOKIE_TTL_S)
        return answer

    async def logout(self, request: web.Request, _caller: Caller) -> web.StreamResponse:
        """Forget the cookie."""
        answer = web.Response(status=303, headers={**HEADERS, "Location": "/login"})
        answer.del_cookie(cookie_name(request, PAGE_COOKIE), path="/")
        return answer

    async def static(self, request: web.Request) -> web.StreamResponse:
        """Style, script and icon: files of the wheel."""
        name = request.match_info["name"]
        if name not in STATIC:
            raise web.HTTPNotFound
        headers = {"Content-Type": STATIC[name], "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
        return web.FileResponse(HERE / "static" / name, headers=headers)

    def _guard(
        self, page: Callable[[web.Request, Caller], Awaitable[web.StreamResponse]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def guarded(request: web.Request) -> web.StreamResponse:
            try:
                return await page(request, await self._services.door.caller(request))
            except Unauthorized as error:
                return self._page("login.html", title="Log in", status_code=401, error=error)
            except (web.HTTPException, ConnectionError):
                raise
            except Exception as error:  # noqa: BLE001 - a page's boundary: a person gets a page, not a trace
                problem = problems.from_error(error, self._services.chance, request.path)
                return self._page("problem.html", title=problem.title, status_code=problem.status, problem=problem)

        return guarded

    def _page(self, template: str, *, title: str, status_code: int = 200, **values: Any) -> web.Response:
        now = self._services.control.clock.now()
        text = self._templates.get_template(template).render(title=title, now=now, **values)
        return web.Response(text=text, status=status_code, content_type="text/html", headers=HEADERS)

    @cached_property
    def _templates(self) -> "Environment":
        from jinja2 import Environment, FileSystemLoader, StrictUndefined  # here: 6 MB that an idle server saves

        made = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        made.filters |= {
            "money": words.money,
            "size": words.size,
            "span": words.span,
            "clock": lambda at: time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at)),
            "command": words.command,
        }
        return made


def bars(site: api.SiteView) -> list[Bar]:
    """Return what is in use at a site: CPU, memory and each GPU model, over its connected agents."""
    have, free = site.capacity, site.free
    found = []
    if have.cpu:
        used = have.cpu - free.cpu
        found.append(Bar("CPU", 100 * used / have.cpu, f"{used:g} of {have.cpu:g} cores"))
    if have.memory:
        taken = have.memory - free.memory
        text = f"{words.size(taken)} of {words.size(have.memory)}"
        found.append(Bar("Memory", 100 * taken / have.memory, text))
    left = {gpu.model: gpu.count for gpu in free.gpu}
    for gpu in have.gpu:
        busy = gpu.count - left.get(gpu.model, 0.0)
        found.append(Bar(gpu.model, 100 * busy / gpu.count if gpu.count else 0.0, f"{busy:g} of {gpu.count:g}"))
    return found
