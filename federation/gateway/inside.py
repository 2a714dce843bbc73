"""Requests to apps that are under way: counted, and cut short once their visitor may stay no longer or has gone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

from aiohttp import web

from atoll.errors import AtollError
from atoll.session import Session
from federation.api.auth import ANYONE, Caller
from federation.api.route import Services
from federation.gateway.crowd import Crowd
from federation.gateway.visitors import Visitor, Visitors

LOOK_S = 5.0
"""An app that says nothing for long is let go this late after its visitor's connection ended."""


class Inside:
    """The visitors of apps."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._visitors = Visitors(services.control)
        self._crowd = Crowd(services.control.clock)
        self._under_way: dict[asyncio.Timeout, web.Request] = {}
        self._looking: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def visit(self, caller: Caller, row: Session, app: str, request: web.Request) -> AsyncIterator[None]:
        """Count a visitor while they are inside; raise `ConnectionResetError` where the visit was cut short.

        Of one of whom nothing is known, raise `TooMany` where the app has too many of them.
        """
        loop = asyncio.get_running_loop()
        until = asyncio.timeout(None)

        def end(_reason: str) -> None:
            if not until.expired():
                until.reschedule(loop.time())

        async def over(now: Session) -> AtollError | None:
            return await self._services.door.over(caller, now, app)

        visitor = Visitor(caller.owner, "", row.id, row.project, 0, end, over)
        unknown = caller == ANYONE
        try:
            with self._crowd.one(f"{app}--{row.id}", request.remote or "") if unknown else nullcontext():
                async with until:
                    self._enter(visitor, until, request)
                    yield
        except TimeoutError:
            if not until.expired():
                raise
            if request.transport is not None:
                request.transport.abort()  # what is cut must not be taken for whole
            raise ConnectionResetError("this visit is over") from None
        finally:
            self._under_way.pop(until, None)
            self._visitors.left(visitor)

    async def close(self) -> None:
        """End all visits."""
        await self._visitors.close("the control plane is stopping")
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def _enter(self, visitor: Visitor, until: asyncio.Timeout, request: web.Request) -> None:
        self._under_way[until] = request
        self._visitors.watch(visitor)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="visitors who left")

    async def _look(self) -> None:
        """Let apps go whose visitors have gone; over when nobody is left."""
        while self._under_way:
            await asyncio.sleep(LOOK_S)
            for until, request in self._under_way.items():
                if request.transport is None and not until.expired():
                    until.reschedule(asyncio.get_running_loop().time())
