"""What an agent must remember of a run so that it starts once, ever, and its end is never lost."""

import msgspec


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """The journal's record of one run, written before its process starts and kept until `Forget`.

    `gpus` are the device UUIDs it holds (with `gpu_milli` thousandths of each). `contact` is the agent's
    monotonic time of the last proof that the control plane heard it, for runs with an exclusive lease of
    `lease_s` seconds. `asked_at` names the last request for a checkpoint that was passed on to the run (the control
    plane's time of it; 0: none). A `blind` one takes streams encrypted end to end, and no others. `ending` is the
    reason code once the agent itself decided to end the run. The fields from `exited` on hold once the process is
    over, and only then.
    """

    run: str
    epoch: int
    grace: float = 10.0
    lease_s: float = 0.0
    contact: float = 0.0
    gpus: tuple[str, ...] = ()
    gpu_milli: int = 1000
    asked_at: float = 0.0
    blind: bool = False
    ending: str = ""
    exited: bool = False
    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    out: int = 0
    err: int = 0


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """On what terms a launched machine lives, as the last `Welcome` said (seconds; 0: no limit)."""

    lease_s: float = 0.0
    max_life_s: float = 0.0
