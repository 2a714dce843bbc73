"""Parts of messages that tell how lanes and streams are."""

import msgspec


class StreamReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a door tells of one connection of a user's stream, or its agent (`whole`) of the stream itself.

    `number` is the teller's own for it: what is told again by that number replaces what was told. `grant` is the
    sealed one that was shown. Bytes are those so far; `received` came from the session. It began `ago_s` before this
    was said, and lasted `lasted_s`; None: it goes on. `reason` is a code, empty for a good end.
    """

    number: int
    grant: bytes
    ago_s: float
    lasted_s: float | None = None
    whole: bool = False
    lane: str = ""
    source: str = ""
    resumed: int = 0
    received: int = 0
    sent: int = 0
    reason: str = ""
    message: str = ""


class LaneFigures(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one lane of a relay carries and has carried, for all agents: as `tunnel.lanes.Tally`, and `streams` now."""

    streams: int = 0
    opens: int = 0
    resumes: int = 0
    received: int = 0
    sent: int = 0
    refused: dict[str, int] = {}
