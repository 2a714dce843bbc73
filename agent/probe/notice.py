"""The notice that a machine will be taken away, as a file: what `sim` instances get, and any script may write."""

import json
from pathlib import Path

DEFAULT_S = 30.0


class NoticeFile:
    """Looks for a JSON file `{"in_s": 30, "message": "…"}`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def check(self) -> tuple[float, str] | None:
        """Return seconds left and message once the file is there. A file that is no such JSON still counts."""
        try:
            text = self._path.read_text()
        except OSError:
            return None
        try:
            notice = json.loads(text)
            return float(notice.get("in_s", DEFAULT_S)), str(notice.get("message", ""))
        except (ValueError, TypeError, AttributeError):
            return DEFAULT_S, text.strip()[:200]
