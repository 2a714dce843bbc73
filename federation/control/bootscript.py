"""The boot script of launched machines: one idempotent POSIX shell script, given to the cloud as user data."""

import math
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from tunnel.jointoken import JoinToken

TEMPLATE = Path(__file__).parent / "boot.sh"
FETCH = Path(__file__).parent / "fetch.py"
"""The Python program in the middle of it: gets the agent, and believes nobody but the CA of the token."""
LIMIT = 16 * 1024
"""Bytes of user data that every cloud takes (EC2's limit, before base64)."""
MARGIN = 1.5
"""The machine ends itself this many boot deadlines after its boot: the control plane first reads its console."""
LIFE_MARGIN_S = 60.0
"""The agent ends the machine at its longest life; this much later the dead-man does, whatever the agent says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BootScript:
    """What one machine's script says: nothing in it is secret but the token, which is good once.

    `cloud` is the provider's kind: it tells the agent whose notices to look for. A machine whose agent has
    not joined within `boot_s`, and any machine after `max_life_s`, switches itself off, each with a margin.
    """

    name: str
    token: JoinToken
    cloud: str
    boot_s: float
    max_life_s: float

    def render(self) -> str:
        """Return the script; equal fields give equal bytes, so that a repeated create call is the same call."""
        values = {
            "NAME": self.name,
            "URL": self.token.url,
            "TOKEN": self.token.text(),
            "CLOUD": self.cloud,
            "BOOT_S": str(math.ceil(self.boot_s * MARGIN)),
            "LIFE_S": str(math.ceil(self.max_life_s + LIFE_MARGIN_S)),
        }
        before, _, after = TEMPLATE.read_text().partition("@FETCH@\n")
        quoted = (re.sub(r"@([A-Z_]+)@", lambda found: shlex.quote(values[found[1]]), text) for text in (before, after))
        return FETCH.read_text().join(quoted)
