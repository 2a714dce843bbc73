"""Where a machine learns that it will be taken away: a file, or the metadata service of its cloud."""

import json
from collections.abc import Mapping
from pathlib import Path

from agent.ports import Notices

DEFAULT_S = 30.0


class NoticeFile:
    """Looks for a JSON file `{"in_s": 30, "message": "…"}`: what `sim` instances get, and any script may write."""

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


def find_notices(environ: Mapping[str, str]) -> Notices | None:
    """Return where to look, as the boot script said in `environ`; None for a machine nobody takes away.

    `ATOLL_INSTANCE_NOTICE` names a file; `ATOLL_INSTANCE_CLOUD` a cloud, with `ATOLL_INSTANCE_METADATA`
    (a URL) in place of its metadata service.
    """
    path, cloud = environ.get("ATOLL_INSTANCE_NOTICE", ""), environ.get("ATOLL_INSTANCE_CLOUD", "")
    if path:
        return NoticeFile(Path(path))
    from agent.probe import metadata  # here: its libraries weigh on no other machine

    if cloud not in metadata.LOOKS:
        return None
    watch = metadata.MetadataWatch(cloud, environ.get("ATOLL_INSTANCE_METADATA", "") or metadata.SERVICE)
    watch.start()
    return watch
