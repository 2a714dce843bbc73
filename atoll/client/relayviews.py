"""What the API answers about relays."""

from atoll.client.linkviews import LaneView
from atoll.client.views import View


class RelayView(View):
    """A relay; `agents`, `streams`, `passing` and bytes are of this moment, 0 while it is not `connected`.

    `passing` are connections that it only passes on to the control plane. `rtt_ms` is the round trip over its own link,
    null where there is none. `lanes` are what its lanes to all agents have carried since its process began, `refused`
    counts users' connections that it sent away, by reason. `secret` and `command` are only in the answer to its
    creation.
    """

    id: str
    name: str
    url: str
    state: str
    message: str
    connected: bool
    seen_at: float | None
    created_at: float
    rtt_ms: float | None
    lanes: list[LaneView]
    refused: dict[str, int]
    agents: int = 0
    streams: int = 0
    passing: int = 0
    received: int = 0
    sent: int = 0
    version: str = ""
    secret: str = ""
    command: str = ""
