"""A small control plane for tests: a real HTTP server with the REST API's shapes and no machines behind it."""

import asyncio
import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from aiohttp import web

from atoll.client import views
from atoll.client.mesh import MeshView
from atoll.document import session_spec

TOKEN = "atk_test"


def session_view(number: int, spec: dict[str, Any], **more: Any) -> views.SessionView:
    facts: dict[str, Any] = {
        "id": f"s-{number}", "name": spec.get("name") or f"calm-{number}", "project": "default", "owner": "me",
        "state": "queued", "reason": "SUBMITTED", "message": "", "hint": "", "attempt": 1, "interruptions": 0,
        "moves": 0, "moving": "", "exit_code": None, "site": "", "group": "", "instance": "", "members": [],
        "apps": {}, "cost": 0.0, "price": 0.0, "on_demand_cost": 0.0, "wait_s": 0.0, "created_at": time.time(),
        "started_at": None, "ended_at": None, "spec": spec,
    }  # fmt: skip
    return views.SessionView(**{**facts, **more})


def instance_view(number: int, **more: Any) -> views.InstanceView:
    facts: dict[str, Any] = {
        "id": f"i-{number}", "provider": "sim", "group": "burst", "site": "sim", "shape": "c4", "zone": "a",
        "spot": False, "state": "joined", "reason": "JOINED", "message": "", "provider_id": f"m-{number}",
        "agent": "", "price": 0.1, "cost": 0.0, "console": "", "created_at": time.time(), "joined_at": None,
        "ended_at": None,
    }  # fmt: skip
    return views.InstanceView(**{**facts, **more})


def standing(provider: str = "aws", **more: Any) -> views.PriceListView:
    rows = [("m5.large", "", False, 0.1, 0.09, 2.0, 0, ""), ("g5.xlarge", "a", True, 0.4, None, 4.0, 1, "L4")]
    keys = ("shape", "zone", "spot", "listed", "price", "cpu", "gpus", "gpu_model")
    zero = {"shape": "free", "zone": "", "spot": False, "listed": 0.0, "reason": "is zero or negative", "dropped": True}
    facts: dict[str, Any] = {
        "provider": provider, "kind": "aws", "source": "a list", "currency": "USD", "at": 1.0, "age_s": 7200.0,
        "stale": False, "blocks": False, "live": True, "count": 2, "dropped": 1, "failure": "", "failed_at": None,
        "rules": {}, "rows": [dict(zip(keys, row, strict=True)) for row in rows], "remarks": [zero],
    }  # fmt: skip
    return msgspec.convert({**facts, **more}, views.PriceListView)


def budget_view(name: str = "red", **more: Any) -> views.BudgetView:
    facts: dict[str, Any] = {
        "name": name, "project": "red", "period": "total", "amount": 10.0, "spent": 4.0, "committed": 2.0, "left": 4.0,
        "stage": "notify", "began": 0.0, "ends": None, "spec": {"name": name, "amount": 10.0}, "created_at": 0.0,
    }  # fmt: skip
    return views.BudgetView(**{**facts, **more})


def agent_view(name: str, *, state: str, until: float | None) -> views.AgentView:
    nothing = views.SlotsView()
    return views.AgentView(
        id=f"ag-{name}", name=name, site="hall", group="hall", state=state, reason="USER", message="", connected=True,
        rtt_ms=1.0, capacity=nothing, free=nothing, price=0.0, spot=False, instance="", epoch=2, drain_until=until,
        protected=False, runs=[], facts={}, joined_at=0.0, ended_at=None,
    )  # fmt: skip


class Plane:
    """State that tests set and read. `cuts`: bytes of output after which each log stream in turn breaks."""

    def __init__(self) -> None:
        self.sessions: dict[str, views.SessionView] = {}
        self.keys: dict[str, list[str]] = {}
        self.objects: dict[str, dict[str, Any]] = {
            "sites": {},
            "groups": {},
            "providers": {},
            "policies": {},
            "budgets": {},
        }
        self.events: list[views.EventView] = []
        self.output: dict[int, dict[str, bytes]] = {1: {"out": b"", "err": b""}}
        self.end: dict[str, Any] = {"state": "succeeded", "reason": "EXITED", "exit_code": 0}
        self.state: dict[str, str] = {"state": "running", "reason": "STARTED", "message": "on desk"}
        self.cuts: list[int] = []
        self.answers_to_lose = 0
        self.prices: dict[str, views.PriceListView] = {}
        self.failing: set[str] = set()
        self.queries: list[dict[str, str]] = []
        self.stopped: list[str] = []
        self.instances: list[views.InstanceView] = []
        self.ends = True
        self.health = views.HealthView(
            orphans="terminate", live=0, credentials_age_s=None, limits=[], pauses=[], swept_at=None
        )
        self.shadow = ""
        self.rule_problems: list[views.RuleProblemView] = []
        self.ranked: list[views.OfferView] = []
        self.outlook = ("place", "PLACED", "", "")
        self.bodies: list[Any] = []
        self.meshes: dict[str, list[MeshView]] = {}
        self.streams = 0
        self.hang = False
        self.url = ""

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard])
        base = "/v1/projects/{project}/sessions"
        app.router.add_get("/v1/status", self._status)
        app.router.add_post(base, self._submit)
        app.router.add_get(base, self._list)
        app.router.add_get(base + "/{ref}/logs", self._logs)
        app.router.add_get(base + "/{ref}/forward", self._forward)
        app.router.add_get(base + "/{ref}", self._get)
        app.router.add_post(base + "/{ref}:stop", self._stop)
        app.router.add_post(base + "/{ref}:move", self._move)
        app.router.add_post(base + "/{ref}/apps/{app}:link", self._link)
        app.router.add_get("/v1/watch", self._watch)
        app.router.add_get("/v1/{kind:sites|groups|providers}", self._objects)
        app.router.add_post("/v1/{kind:sites|groups|providers}", self._create)
        app.router.add_get("/v1/{kind:sites|groups|providers}/{name}", self._object)
        app.router.add_put("/v1/{kind:sites|groups|providers}/{name}", self._put)
        app.router.add_post(base + "/{ref}:approve", self._approve)
        app.router.add_get("/v1/policies:problems", self._rule_problems)
        app.router.add_get("/v1/policies:diff", self._policy_diff)
        app.router.add_post("/v1/policies:shadow", self._policy_shadow)
        app.router.add_get("/v1/{kind:policies|budgets}", self._objects)
        app.router.add_get("/v1/{kind:policies|budgets}/{name}", self._object)
        app.router.add_put("/v1/{kind:policies|budgets}/{name}", self._put_rules)
        app.router.add_delete("/v1/{kind:policies|budgets}/{name}", self._delete)
        app.router.add_post("/v1/agents/{ref}:{verb:cordon|uncordon}", self._cordon)
        app.router.add_post("/v1/offers:search", self._offers)
        app.router.add_post("/v1/tokens", self._token)
        app.router.add_get("/v1/prices", self._prices)
        app.router.add_get("/v1/prices:export", self._export)
        app.router.add_post("/v1/prices:import", self._import)
        app.router.add_get("/v1/prices/{name}", self._price)
        app.router.add_post("/v1/prices/{name}:update", self._update)
        app.router.add_get("/v1/providers/{name}/shapes", self._shapes)
        app.router.add_get("/v1/providers/{name}/health", self._health)
        app.router.add_post("/v1/providers/{name}:rotate", self._rotate)
        app.router.add_post("/v1/groups/{name}:resize", self._size)
        app.router.add_post("/v1/groups/{name}:terminate", self._terminate)
        app.router.add_get("/v1/instances", self._instances)
        app.router.add_get("/v1/meshes", self._meshes)
        app.router.add_get("/v1/meshes/{site}/{other}", self._mesh)
        app.router.add_put("/v1/meshes/{site}/{other}", self._mesh_up)
        app.router.add_post("/v1/meshes/{site}/{other}:rotate", self._mesh)
        app.router.add_delete("/v1/meshes/{site}/{other}", self._mesh_down)
        app.router.add_get("/broken", self._broken)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return problem(401, "UNAUTHORIZED", "you are not logged in", "use atoll login")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _status(self, request: web.Request) -> web.Response:
        status = views.StatusView(
            installation="test", version="0.1.0", protocol=1, started_at=0, database="sqlite", sessions={},
            agents_connected=0, agents=0, instances_live=0, oldest_wait_s=0, oldest_wait_session="",
            oldest_wait_reason="", cost_now_per_hour=0, rev=0,
        )  # fmt: skip
        return reply(status)

    async def _submit(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        session_spec(body["spec"])
        key = request.headers["Idempotency-Key"]
        if key not in self.keys:
            self.keys[key] = []
            for _ in range(body["count"]):
                view = session_view(len(self.sessions), body["spec"])
                self.sessions[view.id] = view
                self.keys[key].append(view.id)
        if self.answers_to_lose:
            self.answers_to_lose -= 1
            assert request.transport
            request.transport.abort()
        return reply({"items": [self.sessions[i] for i in self.keys[key]]}, 201)

    def _find(self, request: web.Request) -> views.SessionView:
        ref = request.match_info["ref"]
        for view in self.sessions.values():
            if ref in (view.id, view.name):
                return view
        raise web.HTTPNotFound(
            text=json.dumps({"detail": f"no session {ref!r}", "code": "NOT_FOUND", "hint": "see ps", "status": 404})
        )

    async def _list(self, request: web.Request) -> web.Response:
        views_ = [v for v in reversed(self.sessions.values()) if request.query.get("live") != "1" or not v.ended_at]
        start = next((i + 1 for i, v in enumerate(views_) if v.id == request.query.get("after")), 0)
        page = views_[start : start + min(2, int(request.query["limit"]))]
        more = page[-1].id if page and page[-1] is not views_[-1] else ""
        return reply({"items": page, "next": more})

    async def _get(self, request: web.Request) -> web.Response:
        return reply(self._find(request))

    async def _stop(self, request: web.Request) -> web.Response:
        view = self._find(request)
        self.stopped.append(view.id)
        self.end = {"state": "cancelled", "reason": "STOP_REQUESTED", "exit_code": 143}
        self.hang = False
        return reply(view)

    async def _move(self, request: web.Request) -> web.Response:
        view = self._find(request)
        view.message = f"is asked for a checkpoint, to go on at {(await request.json())['to']}"
        return reply(view)

    async def _link(self, request: web.Request) -> web.Response:
        return reply({"url": f"http://{request.match_info['app']}--x.localhost/"})

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        view = self._find(request)
        self.streams += 1
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        await send(stream, "state", self.state)
        budget = self.cuts.pop(0) if self.cuts else None
        pinned = int(request.query["attempt"])
        for attempt in [pinned] if pinned else sorted(self.output):
            for channel in ("out", "err"):
                at = int(request.query[channel]) if attempt == pinned or (not pinned and attempt == 1) else 0
                data = self.output[attempt][channel][at:]
                for i in range(0, len(data), 7):
                    if budget is not None and budget <= 0:
                        assert request.transport
                        request.transport.abort()
                        return stream
                    # Overlapping pieces on purpose: a reader must not print a byte twice.
                    back = min(2, at + i)
                    piece = self.output[attempt][channel][at + i - back : at + i + 7]
                    log = {"channel": channel, "offset": at + i - back, "data": base64.b64encode(piece).decode()}
                    await send(stream, "log", {**log, "rank": 0, "attempt": attempt})
                    budget = None if budget is None else budget - 7
        while self.hang:
            await asyncio.sleep(0.02)
        ended = msgspec.structs.replace(view, attempt=max(self.output), ended_at=time.time(), **self.end)
        self.sessions[view.id] = ended
        await send(stream, "end", ended)
        return stream

    async def _forward(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type is web.WSMsgType.BINARY:
                await socket.send_bytes(message.data.upper())
            else:
                await socket.send_bytes(f"port {request.query['port']}".encode())
                await socket.send_str("eof")
                break
        await socket.close()
        return socket

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        since = int(request.query.get("since", "0"))
        for sent, event in enumerate(e for e in self.events if e.rev > since):
            if sent == 2:  # every stream breaks after two events
                return stream
            await stream.write(b": beat\n\n" + f"id: {event.rev}\r\n".encode())
            await send(stream, event.kind, event)
        return stream

    async def _objects(self, request: web.Request) -> web.Response:
        return reply({"items": list(self.objects[request.match_info["kind"]].values()), "next": ""})

    async def _meshes(self, request: web.Request) -> web.Response:
        return reply({"items": [view for views in self.meshes.values() for view in views[:1]], "next": ""})

    async def _mesh(self, request: web.Request) -> web.Response:
        """The views of a mesh are answered one after the other; the last stays."""
        found = self.meshes.get(f"{request.match_info['site']}+{request.match_info['other']}")
        if not found:
            return problem(404, "NOT_FOUND", "there is no such mesh", "")
        return reply(found.pop(0) if len(found) > 1 else found[0])

    async def _mesh_up(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.json())
        return await self._mesh(request)

    async def _mesh_down(self, request: web.Request) -> web.Response:
        found = self.meshes.pop(f"{request.match_info['site']}+{request.match_info['other']}", None)
        return web.Response(status=204) if found else problem(404, "NOT_FOUND", "there is no such mesh", "")

    async def _object(self, request: web.Request) -> web.Response:
        found = self.objects[request.match_info["kind"]].get(request.match_info["name"])
        return reply(found) if found else problem(404, "NOT_FOUND", "no such object", "")

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body["name"] in self.objects[request.match_info["kind"]]:
            return problem(409, "CONFLICT", f"{body['name']} exists", "use apply")
        return reply(self._keep(request.match_info["kind"], body), 201)

    async def _put(self, request: web.Request) -> web.Response:
        return reply(self._keep(request.match_info["kind"], await request.json()))

    def _keep(self, kind: str, body: dict[str, Any]) -> Any:
        slots: dict[str, Any] = {"capacity": views.SlotsView(), "free": views.SlotsView()}
        view: Any
        if kind == "sites":
            view = views.SiteView(
                name=body["name"], labels=body.get("labels", {}), price=body.get("price", 0.0), agents=0, connected=0,
                created_at=0.0, **slots,
            )  # fmt: skip
        elif kind == "groups":
            view = views.GroupView(
                name=body["name"], site=body["site"], kind="elastic", provider=body.get("provider", ""), agents=0,
                pending=0, cold=0, draining=0, cost=0.0, spec=body, created_at=0.0,
            )  # fmt: skip
        else:
            view = views.ProviderView(
                name=body["name"], kind=body["type"], settings=body.get("settings", {}), live=0, created_at=0.0
            )
        self.objects[kind][body["name"]] = view
        return view

    async def _put_rules(self, request: web.Request) -> web.Response:
        kind, name, body = request.match_info["kind"], request.match_info["name"], await request.json()
        view: Any
        if kind == "policies":
            active = name == "default" or bool(body.get("project"))
            view = views.PolicyView(
                name=name, project=body.get("project", ""), active=active, shadow=name == self.shadow, spec=body,
                created_at=0.0,
            )  # fmt: skip
        else:
            view = budget_view(name, spec=body, amount=body["amount"], project=body.get("project", ""))
        self.objects[kind][name] = view
        return reply(view)

    async def _delete(self, request: web.Request) -> web.Response:
        gone = self.objects[request.match_info["kind"]].pop(request.match_info["name"], None)
        return web.Response(status=204) if gone else problem(404, "NOT_FOUND", "no such object", "")

    async def _approve(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.json())
        told = {"state": "queued", "reason": "APPROVED", "message": "approved by me as lead"}
        return reply(msgspec.structs.replace(self._find(request), **told))

    async def _rule_problems(self, request: web.Request) -> web.Response:
        return reply({"items": self.rule_problems, "next": ""})

    async def _policy_shadow(self, request: web.Request) -> web.Response:
        self.shadow = (await request.json())["name"]
        return web.Response(status=204)

    async def _policy_diff(self, request: web.Request) -> web.Response:
        if not self.shadow:
            return problem(404, "NOT_FOUND", "no policy is a shadow now", "set one: atoll policy shadow NAME")
        newest = [views.DifferenceView(at=0.0, session="s-1", name="train", live="place (PLACED)", shadow="denied")]
        counts = {"place -> POLICY": 3}
        return reply(views.ShadowView(policy=self.shadow, since=0.0, asked=9, counts=counts, newest=newest))

    async def _offers(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.json())
        outcome, reason, message, hint = self.outlook
        decision = views.DecisionView(
            at=0.0, outcome=outcome, reason=reason, message=message, hint=hint, taken=[], ranked=self.ranked,
            rejected=[], considered=len(self.ranked),
        )  # fmt: skip
        return reply(decision)

    async def _health(self, request: web.Request) -> web.Response:
        return reply(self.health)

    async def _rotate(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.json())
        if self.bodies[-1]["credentials"].get("key") == "wrong":
            return problem(409, "CONFLICT", "the new credentials do not work", "the old ones stay in use")
        return reply(self.objects["providers"][request.match_info["name"]])

    async def _size(self, request: web.Request) -> web.Response:
        group = self.objects["groups"][request.match_info["name"]]
        told = {key: value for key, value in (await request.json()).items() if value is not None}
        group.spec["size"] = {**group.spec.get("size", {"min": 0, "max": 4}), **told}
        return reply(group)

    async def _terminate(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.json())
        return reply(self.objects["groups"][request.match_info["name"]])

    async def _cordon(self, request: web.Request) -> web.Response:
        text = await request.text()
        self.bodies.append(json.loads(text) if text else None)
        cordoned = request.match_info["verb"] == "cordon"
        until = self.bodies[-1].get("deadline") if cordoned else None
        return reply(agent_view(request.match_info["ref"], state="draining" if cordoned else "ready", until=until))

    async def _instances(self, request: web.Request) -> web.Response:
        """Return the instances; once the group is being ended, one less each time."""
        if self.bodies and self.ends:
            self.instances = self.instances[1:]
        return reply({"items": self.instances, "next": ""})

    async def _token(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.json())
        token = views.TokenView(
            id="f" * 64, kind="join", owner="me", site="desk", group="desk", uses_left=1, expires_at=None,
            created_at=0.0, secret="atj_secret", command="atoll agent join", paste="curl",
        )  # fmt: skip
        return reply(token, 201)

    async def _prices(self, request: web.Request) -> web.Response:
        return reply({"items": list(self.prices.values()), "next": ""})

    async def _price(self, request: web.Request) -> web.Response:
        self.queries.append(dict(request.query))
        found = self.prices.get(request.match_info["name"])
        return reply(found) if found else problem(404, "NOT_FOUND", "no such provider", "")

    async def _update(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.json())
        if request.match_info["name"] in self.failing:
            return problem(503, "UNAVAILABLE", "the price list does not answer", "")
        return reply(self.prices[request.match_info["name"]])

    async def _import(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.json())
        return reply({"items": list(self.prices.values()), "next": ""})

    async def _export(self, request: web.Request) -> web.Response:
        return reply({"content": f"the prices of {request.query.get('provider', 'all')}"})

    async def _shapes(self, request: web.Request) -> web.Response:
        return reply({"items": [], "next": ""})

    async def _broken(self, request: web.Request) -> web.Response:
        return web.Response(text="not json")


async def send(stream: web.StreamResponse, name: str, data: object) -> None:
    await stream.write(f"event: {name}\ndata: {msgspec.json.encode(data).decode()}\n\n".encode())


def reply(what: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(what), status=status, content_type="application/json")


def problem(status: int, code: str, detail: str, hint: str) -> web.Response:
    body = {"status": status, "code": code, "detail": detail, "hint": hint}
    return web.json_response(body, status=status, content_type="application/problem+json")


@contextmanager
def running(plane: Plane) -> Iterator[Plane]:
    """Serve the plane on loopback in a thread of its own."""
    loop = asyncio.new_event_loop()
    ready, done = threading.Event(), asyncio.Event()

    async def serve() -> None:
        runner = web.AppRunner(plane.app(), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        plane.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        await done.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    try:
        yield plane
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(10)
        loop.close()
