"""Following sessions for `atoll run`: their output here, state changes on a terminal, and what they ended with."""

import asyncio
import sys
from collections.abc import Sequence
from typing import BinaryIO

from atoll.cli.output import note
from atoll.client.asynchronous import AsyncClient
from atoll.client.stream import LogChunk, StateChange
from atoll.client.views import SessionView
from atoll.errors import AtollError
from atoll.states import ENDED, Reason, SessionState

PATIENCE_S = 3600.0
"""How long an unreachable control plane is waited for: the sessions run on meanwhile."""


class Printer:
    """Writes one member's output, as it comes or, with a label, line by line with the label in front."""

    def __init__(self, label: str) -> None:
        self._label = label.encode()
        self._rest: dict[str, bytes] = {}

    def write(self, channel: str, data: bytes) -> None:
        """Write bytes of a channel."""
        stream = _stream(channel)
        if self._label:
            *lines, self._rest[channel] = (self._rest.get(channel, b"") + data).split(b"\n")
            data = b"".join(self._label + line + b"\n" for line in lines)
        if data:
            stream.write(data)
            stream.flush()

    def end(self) -> None:
        """Write lines that had no end."""
        for channel, rest in self._rest.items():
            if rest:
                _stream(channel).write(self._label + rest + b"\n")
                _stream(channel).flush()
        self._rest.clear()


class Crowd:
    """The sessions of one `atoll run`, followed together."""

    def __init__(self, client: AsyncClient, sessions: Sequence[SessionView], nodes: int, wait: bool) -> None:
        self._client = client
        self._sessions = sessions
        self._nodes = nodes
        self._wait = wait
        self._talk = sys.stderr.isatty()
        self._linked: set[str] = set()
        self.ended: dict[str, SessionView] = {}
        self.held: dict[str, SessionView] = {}

    async def follow(self) -> None:
        """Return when every session has ended with its output complete, or is held and not to be waited for."""
        async with asyncio.TaskGroup() as tasks:
            for index, session in enumerate(self._sessions):
                for rank in range(self._nodes):
                    tasks.create_task(self._one(index, session, rank))

    async def _one(self, index: int, session: SessionView, rank: int) -> None:
        printer = Printer(self._label(index, rank))
        async for news in self._client.follow(session.id, rank=rank, patience=PATIENCE_S):
            if isinstance(news, LogChunk):
                printer.write(news.channel, news.data)
            elif isinstance(news, SessionView):
                self.ended[session.id] = news
            elif rank == 0:
                await self._changed(session, news)
            if session.id in self.held:
                break
        printer.end()

    async def _changed(self, session: SessionView, change: StateChange) -> None:
        if self._talk and change.state not in ENDED:
            note(f"{session.name}: {change.state}" + (f", {change.message}" if change.message else ""))
        if change.state == SessionState.RUNNING and session.id not in self._linked:
            self._linked.add(session.id)
            for app in session.spec.get("apps", {}):
                link = await self._client.app_link(session.id, app)
                sys.stderr.write(f"{app}: {link}\n")
        if change.state == SessionState.HELD and not self._wait:
            self.held[session.id] = await self._client.session(session.id)

    async def stop(self) -> None:
        """Ask for the end of every session that has not ended."""
        for session in self._sessions:
            if session.id not in self.ended:
                try:
                    await self._client.stop(session.id)
                except AtollError as error:
                    note(f"{session.name}: {error.message}")

    def _label(self, index: int, rank: int) -> str:
        parts = [str(index)] if len(self._sessions) > 1 else []
        parts += [str(rank)] if self._nodes > 1 else []
        return f"[{'.'.join(parts)}] " if parts else ""


def verdict(session: SessionView) -> tuple[int, str]:
    """Return the exit code of an ended session and, when its command did not simply exit, why."""
    if session.state == SessionState.SUCCEEDED:
        return 0, ""
    plain = session.reason in (Reason.EXITED, Reason.MEMBER_FAILED) and session.state == SessionState.FAILED
    why = "" if plain else f"{session.name} {session.state}: {session.message or session.reason}"
    if session.exit_code:
        return session.exit_code, why
    return (124 if session.state == SessionState.EXPIRED else 125), why or f"{session.name} failed without an exit code"


def _stream(channel: str) -> BinaryIO:
    return sys.stderr.buffer if channel == "err" else sys.stdout.buffer
