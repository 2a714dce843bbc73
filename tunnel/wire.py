"""Every message between an agent and the control plane, with the history of the protocol.

Control and user streams share one outbound TLS 1.3 connection (ALPN `atoll-ctl/1`). A control message
is a msgpack map tagged by `t`; unknown fields are ignored, so that a newer peer may say more.

Protocol history (a peer speaks N and N-1):
- 1 (2026-11-21): first.
- 2 (2026-11-21): `Checkpoint`, answered by `NoCheckpoint` or by the run's end; `RunReport.asked`.
- 3 (2026-11-21): data lanes (`Dial`), grants, streams that resume, `exec`, `echo`, meshes, relays.
"""

from typing import TypeAlias, TypeVar

import msgspec

from atoll.session import SessionSpec
from atoll.slots import Slots
from tunnel.figures import LaneFigures, StreamReport

PROTOCOL = 3
DIALS = 3
"""The first protocol whose agents may be sent `Dial`."""
EXECS = 3
"""The first protocol whose agents understand `OpenStream.exec`: an older one refuses such a stream."""
ECHOES = 3
"""The first protocol whose agents understand `OpenStream.echo`."""
RELAYS = 3
"""The first protocol whose agents may be sent `Relays`."""
GRANTS = 3
"""The first protocol whose agents check `OpenStream.grant`, and serve no stream without a good one."""
DIRECT = 3
"""The first protocol whose control planes understand `Inside`."""
TRUSTS = 3
"""The first protocol whose agents may be sent `Trust`, and say what they have `Kept`."""
REPORTS = 3
"""The first protocol whose control planes understand `StreamReports`."""
MESHES = 3
"""The first protocol whose control planes understand `MeshStatus`."""
ALPN_CONTROL = "atoll-ctl/1"
"""Agents' connection: the client certificate is required."""
ALPN_DATA = "atoll-data/1"
"""An agent's further connections, for one stream each: no client certificate, a one-use token comes first."""
ALPN_RELAY = "atoll-relay/1"
"""An agent's link to a relay's process: the client certificate is required."""
ALPN_UPLINK = "atoll-uplink/1"
"""A relay's link to its control plane: the client certificate is required."""
ALPN_USER = "atoll-user/1"
"""Users' connections, for one stream each: no client certificate, a sealed grant comes first."""
ALPN_DATA_SPLICE = "atoll-data-splice/1"
"""As `ALPN_DATA`; the connection is bare once its stream is opened, which must be a blind one."""
ALPN_USER_SPLICE = "atoll-user-splice/1"
"""As `ALPN_USER`, for blind streams; the connection is bare from the answer on where that says so."""
ALPN_INNER = "atoll-inner/1"
"""TLS inside a stream, between its two ends."""
ALPN_JOIN = "atoll-join/1"
"""HTTP/1.1 under the installation's own CA, for a machine that has no certificate yet."""
CONTROL_NAME = "control.atoll.internal"
"""Name in the control plane's certificate that agents check, whatever address they dial."""
RELAY_NAME = "relay.atoll.internal"
"""Name in every relay's certificate. Who asks for it means the relay itself; all else passes it by."""

AGENT_NAMES = ".agent.atoll.internal"
"""An agent's certificate names `<its id>` and this: users who reach it directly ask for that."""

PADDING = bytes(2000)
"""Makes a message longer than any packet of 1500 bytes."""

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

    `boot` tells two processes of one agent apart. `capacity` is what the probes found. With its `padding` it does not
    fit into one packet, as the answer does not: who is welcomed knows that the path carries large ones both ways.
    """

    protocol: int
    version: str
    boot: str
    capacity: Slots
    facts: dict[str, str]
    runs: list[RunReport]
    padding: bytes = b""


class Welcome(Message, frozen=True, tag="welcome"):
    """Control, in answer to `Hello`: the registration counts from here on.

    `kill` lists runs the agent must end (they are not its own any more); `forget` those whose end is
    stored, so their journal and logs may go. `lease_s` is how long an idle launched machine outlives a
    control plane that it cannot reach (0: for ever), `max_life_s` the hard cap since boot (0: none).
    By `grant_key` and the control plane's time, `now`, the agent checks the grants of streams. `relays` are the URLs
    of the relays that serve: it keeps links to two of them. Its `padding` is as the greeting's.
    """

    protocol: int
    epoch: int
    kill: list[str]
    forget: list[str]
    lease_s: float = 0.0
    max_life_s: float = 0.0
    grant_key: bytes = b""
    now: float = 0.0
    relays: list[str] = []
    padding: bytes = b""


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
    """Control: the new certificate, PEM, and its generation; answered by `Kept`."""

    certificate: str
    generation: int = 0


class Trust(Message, frozen=True, tag="trust"):
    """Control: trust these CAs (PEM) from now on, and no others; answered by `Kept`.

    With `renew_s` a new certificate is to be asked for, too, at a random time within as many seconds.
    Sent to agents of protocol `TRUSTS` or newer only.
    """

    ca: str
    renew_s: float | None = None


class Kept(Message, frozen=True, tag="kept"):
    """Agent, after `Welcome`, `Trust` and `Certificate`: what is on its disk now, for good.

    `authorities` are the CAs that it trusts (SHA-256 in hex), `generation` is that of a certificate just kept.
    """

    authorities: list[str]
    generation: int = 0


class Leave(Message, frozen=True, tag="leave"):
    """Agent: its owner took it out of the installation. Control: leave (the machine is being ended)."""

    reason: str = ""


class Dial(Message, frozen=True, tag="dial"):
    """Control: make a data connection (`ALPN_DATA`, with `splice` `ALPN_DATA_SPLICE`) for each token; show it first.

    A token is good for one connection within ten seconds, while the link lives over which it came.
    Sent to agents of protocol `DIALS` or newer only.
    """

    tokens: list[bytes]
    splice: bool = False


class Relays(Message, frozen=True, tag="relays"):
    """Control: the URLs of the relays that serve from now on, in place of those of `Welcome`."""

    relays: list[str]


class RelayLinks(Message, frozen=True, tag="relaylinks"):
    """Agent: the URLs of the relays that it is linked to now."""

    relays: list[str]


class Attach(Message, frozen=True, tag="attach"):
    """Agent to a relay, first message: `boot` names its process, its certificate says who it is."""

    protocol: int
    version: str
    boot: str


class Attached(Message, frozen=True, tag="attached"):
    """Relay, in answer: streams may come over this link, and `Dial`s."""

    protocol: int


class StreamReports(Message, frozen=True, tag="streamreports"):
    """Agent or relay: of users' streams, the news, and what goes on. Told again until it is `Noted`; one at a time.

    `boot` names the process that tells: what another one of the same teller left open is over. `lost` counts what it
    could not keep until somebody listened.
    """

    boot: str
    serial: int
    reports: list[StreamReport] = []
    lost: int = 0


class Noted(Message, frozen=True, tag="noted"):
    """Control: what `StreamReports` of this serial told is stored."""

    serial: int


class Serving(Message, frozen=True, tag="serving"):
    """Relay to its control plane, first message and every few seconds: how it is.

    `boot` names its process. `agents` are linked to it; `streams` run over it; bytes are those since its start.
    `passing` are the connections that it only passes on to the control plane. `tokens` name the credentials of the
    users inside; None: as last told on this link. Of connections that were not served, `port` has those that never got
    to a door, `refused` those that a door sent away, by reason. `buffered` bytes wait to be sent to agents; `lost`
    counts reports of streams that were dropped.
    """

    protocol: int
    version: str
    boot: str
    draining: bool = False
    agents: int = 0
    streams: int = 0
    passing: int = 0
    received: int = 0
    sent: int = 0
    tokens: list[str] | None = None
    lanes: dict[str, LaneFigures] = {}
    held: dict[str, int] = {}
    buffered: int = 0
    refused: dict[str, int] = {}
    port: dict[str, int] = {}
    lost: int = 0


class RelayTerms(Message, frozen=True, tag="relayterms"):
    """Control to a relay, in answer to its first `Serving`: by what it serves from here on, also without us.

    By `grant_key` and the control plane's time, `now`, it checks the grants of streams. Agents in `refused` are no
    members any more. `ca` are the certificates (PEM) of who vouches for agents and for us.
    """

    protocol: int
    grant_key: bytes
    now: float
    refused: list[str]
    ca: str = ""


class Expel(Message, frozen=True, tag="expel"):
    """Control to a relay: this agent is no member any more. Its link and streams end now; it is refused from now on."""

    agent: str
    reason: str


class Inside(Message, frozen=True, tag="inside"):
    """Agent with a door of its own, after each `Welcome` and when somebody new came in: by which credentials (ids)."""

    tokens: list[str]


class Evict(Message, frozen=True, tag="evict"):
    """Control to a relay, or to an agent with a door of its own: these credentials of users count no more.

    Their bearers' connections end now.
    """

    tokens: list[str]


class Drain(Message, frozen=True, tag="drain"):
    """Control to a relay: take nothing new, let go of everything, and end after `deadline_s` seconds at the latest."""

    deadline_s: float


class MeshPeer(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway of another site: its public `keys` (the present one, then one that may follow) and UDP `endpoint`.

    `endpoint` is "" where nobody knows one: then that gateway begins. `allowed` is what lies behind it.
    """

    site: str
    keys: list[str]
    endpoint: str = ""
    allowed: list[str] = []


class MeshWanted(Message, frozen=True, tag="mesh"):
    """Control: the whole WireGuard interface of this gateway; without `addresses` there is to be none.

    `subnets` are the site's own that peers may reach through it. `renew` asks for a next key pair, `switch` names the
    next public key once every peer knows it: it becomes the present one now. `serial` rises with each message.
    Sent only to agents that have sent `MeshStatus`.
    """

    serial: int = 0
    addresses: list[str] = []
    subnets: list[str] = []
    peers: list[MeshPeer] = []
    renew: bool = False
    switch: str = ""


class MeshPeerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A peer as WireGuard sees it: seconds since its last handshake (-1: none yet), bytes, where it was last seen."""

    key: str
    seen_s: float = -1.0
    received: int = 0
    sent: int = 0
    endpoint: str = ""


class MeshStatus(Message, frozen=True, tag="meshstatus"):
    """Agent whose owner permits a mesh: what its owner gave, and how its WireGuard interface is.

    `unable` says why it cannot be a gateway, `error` what of the wanted could not be done. `endpoint` and `subnets`
    are the owner's, `port` is where it listens for UDP, `key` and `next` are public; `key` is "" without an interface.
    `serial` is of the `MeshWanted` that was carried out, or tried, last.
    """

    serial: int = 0
    unable: str = ""
    error: str = ""
    endpoint: str = ""
    subnets: list[str] = []
    port: int = 0
    key: str = ""
    next: str = ""
    peers: list[MeshPeerStatus] = []


class Refuse(Message, frozen=True, tag="refuse"):
    """Control or a relay, then it closes: why this peer may not register. `final`: trying again is of no use."""

    code: str
    message: str
    final: bool = False
    retry_after_s: float = 0.0


class OpenStream(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of a stream's OPEN frame, control to agent: connect to a port of a run.

    The agent resolves it: `app` by name, else `port`, which a process of that very run must listen on.
    With `echo` it is no run's: the agent sends back what comes (`tunnel.echo`), so that round trips can be measured.
    With `exec` it is no port: a program runs beside the run, and the bytes are frames of `tunnel.exec`.
    With `resume` the bytes are frames of `tunnel.resume`, of the stream of that id: it goes on if this way is lost.
    `grant` is a sealed `tunnel.grant.Grant` of just this. With `client`, a certificate (DER) of the user's own, the
    bytes are TLS from that user's end to the agent (`tunnel.innertls`). `again` says that the stream had other lanes
    before: for figures only. On a data connection it comes with `padding`.
    """

    run: str
    app: str = ""
    port: int = 0
    exec: bool = False
    echo: bool = False
    resume: bytes = b""
    grant: bytes = b""
    client: bytes = b""
    again: bool = False
    padding: bytes = b""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A door's answer to a user's `OpenStream`: the stream's lane and `why` that one, or an error's code and text.

    With `bare` the connection is TLS up to here and no further.
    """

    lane: str = ""
    why: str = ""
    bare: bool = False
    code: str = ""
    message: str = ""
    hint: str = ""


FromAgent: TypeAlias = (
    Hello
    | Report
    | NoCheckpoint
    | Log
    | CordonAck
    | Notice
    | Renew
    | Kept
    | Leave
    | RelayLinks
    | Attach
    | Serving
    | MeshStatus
    | Inside
    | StreamReports
)
FromControl: TypeAlias = (
    Welcome
    | Start
    | Stop
    | Checkpoint
    | Forget
    | LogAck
    | Cordon
    | Certificate
    | Trust
    | Leave
    | Dial
    | Refuse
    | Relays
    | Attached
    | RelayTerms
    | Expel
    | Evict
    | Drain
    | MeshWanted
    | Noted
)

Decoded = TypeVar("Decoded")

_encoder = msgspec.msgpack.Encoder()
_from_agent: msgspec.msgpack.Decoder[FromAgent] = msgspec.msgpack.Decoder(FromAgent)
_from_control: msgspec.msgpack.Decoder[FromControl] = msgspec.msgpack.Decoder(FromControl)
_open: msgspec.msgpack.Decoder[OpenStream] = msgspec.msgpack.Decoder(OpenStream)
_answer: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


MALFORMED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are no message: the last two for text, and for what is nested too deeply."""


class ProtocolError(Exception):
    """The peer sent what the protocol does not allow; its link is closed."""


def encode(message: Message | OpenStream | Answer) -> bytes:
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


def decode_answer(data: bytes) -> Answer:
    """Return a door's answer; raise `ProtocolError` when it is none."""
    return _decode(_answer, data)


def _decode(decoder: msgspec.msgpack.Decoder[Decoded], data: bytes) -> Decoded:
    try:
        return decoder.decode(data)
    except MALFORMED as error:
        raise ProtocolError(f"malformed message: {error}") from None
