"""Named steps: every store commit and every cloud call passes here, so that crash points can be listed and tested."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

Hook: TypeAlias = Callable[[str, str], None]
Result = TypeVar("Result")


class Steps:
    """Calls `hook("before" | "after", name)` around each step.

    The hook does nothing in normal life; tests and the simulation crash in it. `seen` collects the names
    that were passed, for sweeps over all of them.
    """

    def __init__(self, hook: Hook | None = None) -> None:
        self._hook = hook
        self.seen: dict[str, int] = {}

    def before(self, name: str) -> None:
        """Mark that the effect of step `name` is about to happen."""
        self.seen[name] = self.seen.get(name, 0) + 1
        if self._hook:
            self._hook("before", name)

    def after(self, name: str) -> None:
        """Mark that the effect of step `name` has happened and nothing after it."""
        if self._hook:
            self._hook("after", name)

    async def run(self, name: str, action: Callable[[], Awaitable[Result]]) -> Result:
        """Run a call to a cloud as step `name`."""
        self.before(name)
        result = await action()
        self.after(name)
        return result
