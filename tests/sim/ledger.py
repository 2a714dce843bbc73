"""What truly happened, written down by the simulated machines themselves: the checkers' ground truth."""

from collections import Counter
from dataclasses import dataclass, field

from atoll.ids import split_run_id


@dataclass(slots=True)
class Life:
    """One process tree of one run: where it ran, from when to when in true time, and how it ended.

    `code` is None when its machine was taken away under it.
    """

    run: str
    machine: str
    began: float
    ended: float | None = None
    code: int | None = None
    lease_s: float = 0.0
    out: bytes = b""
    protected: bool = False
    cpu: int = 0
    memory: int = 0


@dataclass(slots=True)
class Ledger:
    """Every life of every run, the trace of all that happened, fault counts and violations found on the way."""

    lives: list[Life] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def note(self, at: float, text: str) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{at:.6f} {text}")

    def violated(self, at: float, invariant: str, text: str) -> None:
        """Write down that an invariant did not hold."""
        line = f"{invariant} at {at:.3f}: {text}"
        self.violations.append(line)
        self.trace.append(line)

    def began(self, life: Life) -> None:
        """A process tree came to be; a run or a session's member that has one already is a violation (I8)."""
        self.note(life.began, f"began {life.run} on {life.machine}")
        session, _, rank = split_run_id(life.run)
        for other in self.lives:
            same = split_run_id(other.run)
            if other.run == life.run:
                self.violated(life.began, "I14", f"run {life.run} was started twice")
            elif (same[0], same[2]) == (session, rank) and other.ended is None:
                self.violated(life.began, "I8", f"{life.run} began while {other.run} runs on {other.machine}")
        self.lives.append(life)

    def ended(self, life: Life, at: float, code: int | None) -> None:
        """A process tree is gone."""
        if life.ended is None:
            life.ended, life.code = at, code
            self.note(at, f"ended {life.run} {code}")

    def alive(self, machine: str) -> list[Life]:
        """Return what runs on a machine."""
        return [life for life in self.lives if life.machine == machine and life.ended is None]
