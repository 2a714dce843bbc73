"""Route of the figures that Prometheus reads."""

from collections.abc import Mapping

from aiohttp import web

from atoll.host import process
from federation.api.route import Access, Call, Route
from tunnel.metrics import CONTENT_TYPE, Family, Sample, counter, gauge, text


async def metrics(call: Call) -> web.Response:
    """Return the figures of this moment, in Prometheus' text format."""
    families = [*await call.control.metrics.families(), *_process(), _failures(call.services.failures.refused)]
    for figures in call.services.figures:
        families += figures()
    return web.Response(
        body=text(families).encode(), headers={"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"}
    )


def _failures(refused: Mapping[str, int]) -> Family:
    samples = [Sample(count, {"outcome": outcome}) for outcome, count in sorted(refused.items())]
    return counter("atoll_failed_proofs_total", "Requests with a bad token or cookie, by what came of them.", *samples)


def _process() -> list[Family]:
    return [
        gauge("process_resident_memory_bytes", "Memory of the control plane's process.", Sample(process.memory())),
        counter("process_cpu_seconds_total", "CPU time of the control plane's process.", Sample(process.cpu_seconds())),
        gauge("process_open_fds", "Descriptors that it has open.", Sample(process.descriptors())),
    ]


ROUTES = (
    Route(
        method="GET", path="/metrics", handle=metrics, access=Access.MONITOR, answer=str,
        content=CONTENT_TYPE.partition(";")[0], summary="Figures for Prometheus",
    ),
)  # fmt: skip
