"""Which way to a control plane an agent takes: directly, in small packets, or inside a WebSocket. No I/O.

The first that works is kept. Small packets are for paths that lose large ones without telling (an MTU below 1500 and
no ICMP); a WebSocket is for what opens TLS on the way, or lets nothing but HTTP pass.
"""

from enum import StrEnum

AGAIN_S = 600.0
"""After so long on another way the direct one is tried again, when a new link is needed."""
SEGMENT = 1220
"""Bytes of a TCP segment that passes every path: IPv6 knows no smaller MTU than 1280."""


class Way(StrEnum):
    """How connections to the control plane are made."""

    DIRECT = "directly"
    SMALL = "in small packets"
    WEBSOCKET = "inside a WebSocket"

    @property
    def segment(self) -> int:
        """Most bytes of a TCP segment; 0: as many as the path is said to take."""
        return 0 if self is Way.DIRECT else SEGMENT


_STALLS = 4
"""So many attempts that came to nothing, large and small packets in turn, and a WebSocket is tried: a server that is
merely slow must not drive its agents there."""


class Ways:
    """The way of all connections of one agent to one control plane; with `fixed` there is no other."""

    def __init__(self, fixed: Way | None = None) -> None:
        self.current = fixed or Way.DIRECT
        self._fixed = fixed is not None
        self._chosen_at = 0.0
        self._stalls = 0
        self._proven: Way | None = None

    def first(self, now: float) -> Way:
        """Return what to try for a new link. `now` is in monotonic seconds."""
        late = not self._fixed and now >= self._chosen_at + AGAIN_S
        return Way.DIRECT if late else self.current

    def foreign(self, way: Way, now: float) -> Way | None:
        """Another TLS server than the control plane answered on `way`: return what to try at once, None: nothing.

        That is chosen once it works: who answered may be a hotel's page for logging in, and soon gone.
        """
        if self._fixed or way is Way.WEBSOCKET:
            return None
        if self.current is Way.WEBSOCKET:
            self._choose(self.current, now)  # that was a trial: no other for a while
        return Way.WEBSOCKET

    def stalled(self, way: Way, now: float) -> None:
        """A connection was made on `way` and came to nothing: take another next; one that has worked, once more."""
        if self._fixed:
            return
        self._stalls += 1
        if way is not self.current:
            self._choose(self.current, now)  # that was a trial: no other for a while
        elif way is self._proven and self._stalls == 1:
            return  # it has worked: the server may have been stopped for a while
        elif self._stalls % _STALLS == 0:
            self._choose(Way.WEBSOCKET, now)
        else:
            self._choose(Way.SMALL if way is Way.DIRECT else Way.DIRECT, now)

    def worked(self, way: Way, now: float) -> None:
        """A link works on `way`."""
        self._stalls, self._proven = 0, way
        if way is not self.current:
            self._choose(way, now)

    def _choose(self, way: Way, now: float) -> None:
        self.current, self._chosen_at = way, now
