"""Log set-up of a process: structlog and the standard library's logging, both to stderr, no secrets."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_SECRET = ("authorization", "password", "private", "secret", "token")
LEVELS = ("debug", "info", "warning", "error")


def configure(level: str = "info", json: bool = False) -> None:
    """Send all logs of this process to stderr from `level` on, as JSON lines or as plain readable lines.

    Values whose key names a secret are masked. `level` is one of `LEVELS`; anything else counts as `info`.
    """
    number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    colors = sys.stderr.isatty()
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if json
        # Plain tracebacks: the pretty ones print local variables, and those may hold secrets.
        else structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
    )
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info if json else _unchanged,
        mask_secrets,
    ]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processor=renderer))
    root = logging.getLogger()
    root.handlers[:] = [stream]
    root.setLevel(max(number, logging.WARNING) if number > logging.DEBUG else number)


def mask_secrets(_logger: Any, _method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace the value of each key that names a secret by `***`."""
    for key in entry:
        if key != "event" and any(word in key.lower() for word in _SECRET):
            entry[key] = "***"
    return entry


def _unchanged(_logger: Any, _method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return entry
