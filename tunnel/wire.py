"""Every message between an agent and the control plane, with the history of the protocol.

Control and user streams share one outbound TLS 1.3 connection (ALPN `atoll-ctl/1`). A control message
is a msgpack map tagged by `t`; unknown fields are ignored, so that a newer peer may say more.

Protocol history (a peer speaks N and N-1):
- 1 (2026-11-21): first.
- 2 (2026-11-21): `Checkpoint`, answered by `NoCheckpoint` or by the run's end; `RunReport.asked`.
- 3 (2026-11-21): data lanes (`Dial`), grants, streams that resume, `exec`.
"""

from typing import TypeAlias, TypeVar

import msgspec

from atoll.session import SessionSpec
from atoll.slots import Slots

PROTOCOL = 3
DIALS = 3
"""The first protocol whose agents may be sent `Dial`."""
EXECS = 3
"""The first protocol whose agents understand `OpenStream.exec`: an older one refuses such a stream."""
GRANTS = 3
"""The first protocol whose agents check `OpenStream.grant`, and serve no stream without a good one."""
ALPN_CONTROL = "atoll-ctl/1"
"""Agents' connection: the client certificate is required."""
ALPN_DATA = "atoll-data/1"
"""An agent's further connections, for one stream each: no client certificate, a one-use token comes first."""
ALPN_JOIN = "atoll-join/1"
"""HTTP/1.1 under the installation's own CA, for a machine that has no certificate yet."""
CONTROL_NAME = "control.atoll.internal"
"""Name in the control plane's certificate that agents check, whatever address they dial."""

PING_EVERY_S = 1.5
"""Each end sends an app ping this often."""
DEAD_AFTER_S = 4.0
"""A link silent for this long is dead: noticed within 5 s at both ends (I15)."""


class Message(msgspec.Struct, frozen=True, tag_field="t", kw_only=True):
    """Base of all control messages."""


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent knows of one run. `state` is `starting`, `running` or `exited`.

    `exit_code` is the process's (128 + signal when a signal ended it) once exited, None if it could not be
    learned; `reason` is a code of `atoll.states.Reason` where there is more to say. `asked` says that it was asked
    for a checkpoint at some time before: what its exit code then means is the session's affair.
    """

    run: str
    state: str
    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    limits: str = ""
    apps: dict[str, int] = {}
    out: int = 0
    err: int = 0
    asked: bool = False


class Hello(Message, frozen=True, tag="hello"):
    """Agent, first message: who it is and everything it runs or has not yet been told may be forgotten (I13).

    `boot` tells two processes of one agent apart. `capacity` is what the probes found.
    """

    protocol: int
    version: str
    boot: str
    capacity: Slots
    facts: dict[str, str]
    runs: list[RunReport]


class Welcome(Message, frozen=True, tag="welcome"):
    """Control, in answer to `Hello`: the registration counts from here on.

    `kill` lists runs the agent must end (they are not its own any more); `forget` those whose end is
    stored, so their journal and logs may go. `lease_s` is how long an idle launched machine outlives a
    control plane that it cannot reach (0: for ever), `max_life_s` the hard cap since boot (0: none).
    By `grant_key` and the control plane's time, `now`, the agent checks the grants of streams.
    """

    protocol: int
    epoch: int
    kill: list[str]
    forget: list[str]
    lease_s: float = 0.0
    max_life_s: float = 0.0
    grant_key: bytes = b""
    now: float = 0.0


class Start(Message, frozen=True, tag="start"):
    """Control: start this run. Repeats are harmless: a run id starts once, ever.

    `slots` is what it holds; `lease_s` (0: none) the exclusive lease of I8: when the agent has heard
    nothing for that long by its own clock, less drift, it ends the run itself.
    """

    run: str
    epoch: int
    spec: SessionSpec
    slots: Slots
    env: dict[str, str]
    lease_s: float = 0.0


class Stop(Message, frozen=True, tag="stop"):
    """Control: TERM, then KILL of the whole tree after `grace` seconds."""

    run: str
    grace: float


class Checkpoint(Message, frozen=True, tag="checkpoint"):
    """Control: send `signal` (a name without SIG) to the run's main process, once for each `asked_at`.

    `asked_at` is the control plane's time of the request, which tells a repeat from a new one. Nothing is ended by
    this: the run goes on until it exits by itself.
    """

    run: str
    signal: str
    asked_at: float


class NoCheckpoint(Message, frozen=True, tag="nocheckpoint"):
    """Agent: the run was not sent the signal of `Checkpoint`, and why; it runs on as if it had not been asked."""

    run: str
    asked_at: float
    message: str


class Report(Message, frozen=True, tag="report"):
    """Agent: a run changed. Repeated at each registration until `Forget`."""

    report: RunReport


class Forget(Message, frozen=True, tag="forget"):
    """Control: the run's end and its logs up to the reported sizes are stored."""

    runs: list[str]


class Log(Message, frozen=True, tag="log"):
    """Agent: output of a run from `offset` on. `channel` is `out` or `err`. A gap means dropped bytes."""

    run: str
    channel: str
    offset: int
    data: bytes


class LogAck(Message, frozen=True, tag="logack"):
    """Control: output below `offset` is stored; the agent may free it."""

    run: str
    channel: str
    offset: int


class Cordon(Message, frozen=True, tag="cordon"):
    """Control: `cordoned` True takes no new session from now on; answered by `CordonAck`."""

    epoch: int
    cordoned: bool


class CordonAck(Message, frozen=True, tag="cordonack"):
    """Agent: the cordon of `epoch` is in force, and this is everything that still runs."""

    epoch: int
    runs: list[str]


class Notice(Message, frozen=True, tag="notice"):
    """Agent: its machine will be taken away in about `in_s` seconds (a spot notice)."""

    in_s: float
    message: str


class Renew(Message, frozen=True, tag="renew"):
    """Agent: half of its certificate's life is over; `csr` is PEM, from a key made on its host."""

    csr: str


class Certificate(Message, frozen=True, tag="certificate"):
    """Control: the new certificate, PEM."""

    certificate: str


class Leave(Message, frozen=True, tag="leave"):
    """Agent: its owner took it out of the installation. Control: leave (the machine is being ended)."""

    reason: str = ""


class Dial(Message, frozen=True, tag="dial"):
    """Control: make a data connection (`ALPN_DATA`) for each token, and show it there first.

    A token is good for one connection within ten seconds, while the link lives over which it came.
    Sent to agents of protocol `DIALS` or newer only.
    """

    tokens: list[bytes]


class Refuse(Message, frozen=True, tag="refuse"):
    """Control, then it closes: why this agent may not register. `final`: trying again is of no use."""

    code: str
    message: str
    final: bool = False
    retry_after_s: float = 0.0


class OpenStream(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of a stream's OPEN frame, control to agent: connect to a port of a run.

    The agent resolves it: `app` by name, else `port`, which a process of that very run must listen on.
    With `exec` it is no port: a program runs beside the run, and the bytes are frames of `tunnel.exec`.
    With `resume` the bytes are frames of `tunnel.resume`, of the stream of that id: it goes on if this way is lost.
    `grant` is a sealed `tunnel.grant.Grant` of just this.
    """

    run: str
    app: str = ""
    port: int = 0
    exec: bool = False
    resume: bytes = b""
    grant: bytes = b""


FromAgent: TypeAlias = Hello | Report | NoCheckpoint | Log | CordonAck | Notice | Renew | Leave
FromControl: TypeAlias = (
    Welcome | Start | Stop | Checkpoint | Forget | LogAck | Cordon | Certificate | Leave | Dial | Refuse
)

Decoded = TypeVar("Decoded")

_encoder = msgspec.msgpack.Encoder()
_from_agent: msgspec.msgpack.Decoder[FromAgent] = msgspec.msgpack.Decoder(FromAgent)
_from_control: msgspec.msgpack.Decoder[FromControl] = msgspec.msgpack.Decoder(FromControl)
_open: msgspec.msgpack.Decoder[OpenStream] = msgspec.msgpack.Decoder(OpenStream)


class ProtocolError(Exception):
    """The peer sent what the protocol does not allow; its link is closed."""


def encode(message: Message | OpenStream) -> bytes:
    """Return a message as msgpack."""
    return _encoder.encode(message)


def decode_from_agent(data: bytes) -> FromAgent:
    """Return an agent's message; raise `ProtocolError` when it is none."""
    return _decode(_from_agent, data)


def decode_from_control(data: bytes) -> FromControl:
    """Return the control plane's message; raise `ProtocolError` when it is none."""
    return _decode(_from_control, data)


def decode_open(data: bytes) -> OpenStream:
    """Return the payload of an OPEN frame; raise `ProtocolError` when it is none."""
    return _decode(_open, data)


def _decode(decoder: msgspec.msgpack.Decoder[Decoded], data: bytes) -> Decoded:
    try:
        return decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"malformed message: {error}") from None
