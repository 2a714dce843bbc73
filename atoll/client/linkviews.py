"""What the API says about agents' links: how they stand, what pings over them found, and who used them."""

from atoll.client.views import View


class LaneView(View):
    """What one lane (`mux`, `data`) to an agent has carried since its process began; `received` came from it.

    `refused` counts streams that were not opened on it, by reason; `streams` are open now.
    """

    lane: str
    streams: int
    opens: int
    resumes: int
    received: int
    sent: int
    refused: dict[str, int]


class DataConnectionsView(View):
    """An agent's data connections: ready, carrying a stream, asked for; and the streams that wait for one."""

    ready: int
    in_use: int
    pending: int
    waiting: int


class LinkView(View):
    """An agent's link. Moments are Unix seconds, null where nothing is known since the control plane began.

    `connects` and `drops` count from there, too. `proxy` is the HTTP proxy that the agent dials through, empty for
    none; `direct` where users may reach the agent without a relay, empty where they may not; `doors` are where
    users' streams to it come in (`host:port`), the first one first; `silent_s` is how long it was not heard, 0 while it
    is connected.
    """

    agent: str
    name: str
    site: str
    group: str
    connected: bool
    since: float | None
    silent_s: float
    dropped_at: float | None
    drop_reason: str
    connects: int
    drops: int
    rtt_ms: float | None
    protocol: int
    proxy: str
    direct: str
    doors: list[str]
    lanes: list[LaneView]
    data: DataConnectionsView
    buffered: int


class ChoiceView(View):
    """Which lane a stream for one use (`short`, `bulk`) took, and why."""

    use: str
    lane: str
    why: str


class PingsView(View):
    """Round trips over one way: `link` (the link's own pings), or a stream on the lane `mux` or `data`.

    Times are milliseconds, null without an answer. `error` says why there are fewer than asked for.
    """

    way: str
    sent: int
    lost: int
    min_ms: float | None
    median_ms: float | None
    max_ms: float | None
    error: str


class PingView(View):
    """What pinging an agent found."""

    link: LinkView
    choices: list[ChoiceView]
    pings: list[PingsView]


class StreamWayView(View):
    """One connection of a stream: `via` a relay's name, `direct` (the agent's own door) or `control`.

    Where there were too many, the oldest are one of which `resumed` are those after the first. Its bytes are those of
    the lane, with the stream's own frames. `reason` `UNSEEN`: nobody told of its end.
    """

    via: str
    lane: str
    source: str
    resumed: int
    received: int
    sent: int
    reason: str
    message: str
    began_at: float
    ended_at: float | None


class StreamRecordView(View):
    """A user's stream, or several alike that are summed up (`streams`); moments are Unix seconds.

    `state` is `permitted`, `open`, `ended`, `refused` or `summed`; `door` where the user came in (`forward`, `stream`,
    `ssh`, `app`), `source` the address it came from; `received` counts the bytes that came from the session, as its
    agent counted them where it told. `reason` is a code, empty for a good end. `ways` are the connections of a stream
    that may have several.
    """

    id: str
    state: str
    project: str
    session: str
    run: str
    user: str
    door: str
    app: str
    port: int
    exec: bool
    source: str
    lanes: list[str]
    ways: list[StreamWayView]
    streams: int
    resumed: int
    received: int
    sent: int
    reason: str
    message: str
    began_at: float
    ended_at: float | None
