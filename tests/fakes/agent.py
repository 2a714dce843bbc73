"""A scripted agent: speaks the protocol over any dialer, runs nothing, ends runs when told."""

import asyncio
from collections.abc import Callable

from atoll.slots import GIB, Slots
from tunnel import wire
from tunnel.dialer import Dialer
from tunnel.link import Link, Side


class ScriptedAgent:
    """Answers `Start` with running, `Stop` with exit code `term_code`, and keeps reports until they are forgotten.

    A request for a checkpoint is kept in `asked`; `refusal` is said to it where there is one.
    """

    def __init__(self, dialer: Dialer, *, capacity: Slots | None = None, protocol: int = wire.PROTOCOL) -> None:
        self.protocol = protocol
        self.asked: list[str] = []
        self.refusal = ""
        self.term_code = 143
        self.capacity = capacity or Slots(cpu=2000, memory=4 * GIB, disk=10 * GIB)
        self.runs: dict[str, wire.RunReport] = {}
        self.started: list[str] = []
        self.cordoned = False
        self.refused: wire.Refuse | None = None
        self.got: list[wire.FromControl] = []
        self.facts: dict[str, str] = {}
        self.link: Link | None = None
        self.acknowledges = True
        self.serve: Callable[[], asyncio.Protocol] | None = None
        self._dialer = dialer

    async def dial(self) -> None:
        """Connect; the registration follows by itself."""
        await self._dialer.dial(lambda: Link(self, side=Side.AGENT))

    def end(self, run: str, code: int | None, *, out: bytes = b"") -> None:
        """Let a run end, with its output sent before."""
        if out:
            self._send(wire.Log(run=run, channel="out", offset=0, data=out))
        self.runs[run] = wire.RunReport(run=run, state="exited", exit_code=code, out=len(out), asked=run in self.asked)
        self._send(wire.Report(report=self.runs[run]))

    def notice(self, in_s: float) -> None:
        """Say that the machine will be taken away."""
        self._send(wire.Notice(in_s=in_s, message=f"taken in {in_s:g} s"))

    # -- LinkOwner

    def linked(self, link: Link) -> None:
        self.link = link
        hello = wire.Hello(
            protocol=self.protocol,
            version="test",
            boot="boot",
            capacity=self.capacity,
            facts=self.facts,
            runs=list(self.runs.values()),
        )
        link.send(hello)

    def received(self, link: Link, message: wire.FromAgent | wire.FromControl) -> None:
        self.got.append(message)  # type: ignore[arg-type]
        match message:
            case wire.Welcome(kill=kill, forget=forget):
                for run in [*kill, *forget]:
                    self.runs.pop(run, None)
            case wire.Start(run=run):
                if run not in self.runs:
                    self.started.append(run)
                    self.runs[run] = wire.RunReport(run=run, state="running", limits="not enforced")
                self._send(wire.Report(report=self.runs[run]))
            case wire.Stop(run=run):
                if run in self.runs and self.runs[run].state != "exited":
                    self.end(run, self.term_code)
            case wire.Checkpoint(run=run, asked_at=asked_at) if self.refusal:
                self._send(wire.NoCheckpoint(run=run, asked_at=asked_at, message=self.refusal))
            case wire.Checkpoint(run=run):
                self.asked.append(run)
            case wire.Forget(runs=runs):
                for run in runs:
                    self.runs.pop(run, None)
            case wire.Cordon(epoch=epoch, cordoned=cordoned):
                self.cordoned = cordoned
                if cordoned and self.acknowledges:
                    live = [run for run, report in self.runs.items() if report.state != "exited"]
                    self._send(wire.CordonAck(epoch=epoch, runs=live))
            case wire.Refuse():
                self.refused = message

    def stream_opened(self, link: Link, opening: wire.OpenStream) -> asyncio.Protocol | None:
        return self.serve() if self.serve else None

    def lost(self, link: Link, reason: str) -> None:
        if self.link is link:
            self.link = None

    def _send(self, message: wire.Message) -> None:
        if self.link:
            self.link.send(message)
