"""Traces: who came when, asked for what, and ran for how long; read from public traces and from our own history.

Our own form, written by `atoll simulate --save`, is JSON lines (`.jsonl`) or CSV with these columns, of which only
`at`, `duration_s` and one of `cpu` and `gpu` must be there:

    at           submission: Unix seconds, or an ISO 8601 time (UTC where it names no zone)
    duration_s   seconds that it ran for, undisturbed
    cpu, gpu     cores and devices a member (0.5 is half of one); memory: 16GiB
    gpu_models   models that will do: T4|L4
    nodes, project, id, expected_s, priority, max_price (units an hour), max_wait_s, deadline_s
    spot         false: refuses spot machines
    checkpoint   true, or the seconds of work that a move costs: it may be moved
"""

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from atoll import money
from atoll.errors import Invalid
from atoll.session import Checkpoint
from atoll.slots import GIB, MIB, GpuRequest, Request, parse_bytes, parse_milli
from federation.simulate.model import Job

CPU_PER_GPU, MEMORY_PER_GPU = 4000, 32 * GIB
"""What a GPU job of a trace that tells no more is taken to need beside each GPU: thousandths of a core, bytes."""

Row = Mapping[str, object]
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")


def read(path: Path, *, cluster: str = "") -> list[Job]:
    """Return the jobs of a trace in the order of submission; its form is told by its name and its columns.

    `cluster` keeps only jobs of that one, where the trace has several. Raise `Invalid`, naming the line, for what
    cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise Invalid(f"{path} is not text", hint="a trace is CSV or JSON lines") from None
    rows, reader = _parsed(path, text)
    jobs = list(_jobs(path, rows, reader, cluster))
    if not jobs:
        among = f" of cluster {cluster!r}" if cluster else ""
        raise Invalid(f"{path} holds no job{among}", hint="a job needs a duration above 0")
    ids = {job.id for job in jobs}
    if len(ids) != len(jobs):
        raise Invalid(f"{path} holds {len(jobs) - len(ids)} jobs with the id of another")
    return sorted(jobs, key=lambda job: (job.at, job.id))


def window(jobs: Iterable[Job], *, days: float | None = None, skip_days: float = 0.0) -> list[Job]:
    """Return the jobs of `days` after the first `skip_days`, counted from the first submission."""
    jobs = list(jobs)
    if not jobs:
        return []
    begin = min(job.at for job in jobs) + skip_days * 86400
    end = math.inf if days is None else begin + days * 86400
    return [job for job in jobs if begin <= job.at < end]


def _parsed(path: Path, text: str) -> tuple[Iterator[tuple[int, Row]], "Reader"]:
    if path.suffix in (".jsonl", ".ndjson", ".json"):
        return _json_lines(path, text), _own
    lines = csv.DictReader(text.splitlines())
    columns = set(lines.fieldnames or ())
    for needs, reader in _FORMS:
        if needs <= columns:
            return ((lines.line_num, row) for row in lines), reader
    raise Invalid(
        f"{path} is no trace that Atoll knows: its columns are {', '.join(sorted(columns)) or 'none'}",
        hint="columns at, duration_s, and cpu or gpu will do; see `atoll simulate --help`",
    )


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise Invalid(f"{path}, line {number}: is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise Invalid(f"{path}, line {number}: is no JSON object")
        yield number, row


def _jobs(path: Path, rows: Iterable[tuple[int, Row]], reader: "Reader", cluster: str) -> Iterator[Job]:
    for number, row in rows:
        if cluster and row.get("cluster") != cluster:
            continue
        try:
            job = reader(row, number)
        except (ValueError, KeyError, TypeError) as error:
            what = f"has no {error}" if isinstance(error, KeyError) else str(error)
            raise Invalid(f"{path}, line {number}: {what}") from None
        except Invalid as error:
            raise Invalid(f"{path}, line {number}: {error.message}", hint=error.hint) from None
        if job is not None:
            yield job


# -- forms ----------------------------------------------------------------------------------------


def _own(row: Row, number: int) -> Job | None:
    """Read a line of our own form."""
    gpu, cpu = parse_milli(_text(row, "gpu", "0")), _text(row, "cpu")
    if not gpu and not cpu:
        raise ValueError("asks for neither cpu nor gpu")
    memory = _text(row, "memory")
    models = tuple(sorted(filter(None, _text(row, "gpu_models").split("|"))))
    share = max(1, gpu) / 1000
    return Job(
        id=_text(row, "id", f"line-{number}"),
        at=_moment(row["at"]),
        duration_s=_positive(row["duration_s"], "duration_s"),
        request=Request(
            parse_milli(cpu) if cpu else round(CPU_PER_GPU * share),
            parse_bytes(memory) if memory else (round(MEMORY_PER_GPU * share) if gpu else 256 * MIB),
            parse_bytes(_text(row, "disk", "0")),
            GpuRequest(gpu, models),
        ),
        nodes=int(_text(row, "nodes", "1")),
        project=_text(row, "project"),
        expected_s=_number(row, "expected_s"),
        priority=int(_text(row, "priority", "0")),
        spot=_flag(row, "spot", default=True),
        preemptible=_flag(row, "preemptible", default=False),
        protect=_flag(row, "protect", default=False),
        checkpoint=_checkpoint(_text(row, "checkpoint")),
        max_price=money.micros(price) if (price := _number(row, "max_price")) is not None else None,
        max_wait_s=_number(row, "max_wait_s"),
        deadline_s=_number(row, "deadline_s"),
    )


def dump(job: Job) -> dict[str, object]:
    """Return a job as a line of our own form; what is as usual is left out."""
    request = job.request
    row: dict[str, object] = {"id": job.id, "at": job.at, "duration_s": job.duration_s, "cpu": request.cpu / 1000}
    row["memory"] = request.memory
    extra: dict[str, object] = {
        "disk": request.disk,
        "gpu": request.gpu.milli / 1000,
        "gpu_models": "|".join(request.gpu.models),
        "nodes": job.nodes if job.nodes > 1 else 0,
        "project": job.project,
        "expected_s": job.expected_s,
        "priority": job.priority,
        "max_price": None if job.max_price is None else job.max_price / money.PER_UNIT,
        "max_wait_s": job.max_wait_s,
        "deadline_s": job.deadline_s,
        "checkpoint": job.checkpoint.lost if job.checkpoint else None,
        "preemptible": job.preemptible,
        "protect": job.protect,
    }
    row.update({key: value for key, value in extra.items() if value})
    return row if job.spot else {**row, "spot": False}


def _philly(row: Row, number: int) -> Job | None:
    """Read a job of the Philly trace: GPUs and times only; one that never ran is no job."""
    duration, gpus = float(_text(row, "duration_s", "0")), int(_text(row, "gpus", "0"))
    if duration <= 0 or gpus <= 0:
        return None
    return Job(
        id=f"j-{number}",
        at=_moment(row["submitted_at"]),
        duration_s=duration,
        request=Request(CPU_PER_GPU * gpus, MEMORY_PER_GPU * gpus, 0, GpuRequest(1000 * gpus)),
        project=_text(row, "cluster"),
    )


def _openb(row: Row, number: int) -> Job | None:
    """Read a pod of the openb trace; times are seconds from its beginning. One that never ran is no job."""
    begin, end = _number(row, "scheduled_time"), _number(row, "deletion_time")
    if begin is None or end is None or end <= begin:
        return None
    count = int(_text(row, "num_gpu", "0"))
    milli = int(_text(row, "gpu_milli", "0")) if count == 1 else 1000 * count
    models = tuple(sorted({*_text(row, "gpu_spec").split("|")} - {""})) if milli else ()
    return Job(
        id=_text(row, "name", f"line-{number}"),
        at=_moment(row["creation_time"]),
        duration_s=end - begin,
        request=Request(
            int(_text(row, "cpu_milli", "0")), int(_text(row, "memory_mib", "0")) * MIB, 0, GpuRequest(milli, models)
        ),
    )


Reader = Callable[[Row, int], Job | None]
_FORMS: Sequence[tuple[set[str], Reader]] = (
    ({"submitted_at", "duration_s", "gpus"}, _philly),
    ({"cpu_milli", "creation_time", "deletion_time", "num_gpu"}, _openb),
    ({"at", "duration_s"}, _own),
)


# -- fields ---------------------------------------------------------------------------------------


def _text(row: Row, key: str, default: str = "") -> str:
    value = row.get(key)
    return default if value is None or value == "" else str(value).strip()


def _number(row: Row, key: str) -> float | None:
    text = _text(row, key)
    return _finite(text, key) if text else None


def _positive(value: object, key: str) -> float:
    number = _finite(str(value), key)
    if number <= 0:
        raise ValueError(f"{key} is {number:g}: it must be above 0")
    return number


def _finite(text: str, key: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{key} is {text!r}: no number") from None
    if not math.isfinite(number):
        raise ValueError(f"{key} is {text!r}: no finite number")
    return number


def _flag(row: Row, key: str, *, default: bool) -> bool:
    text = _text(row, key).lower()
    if text and text not in (*_TRUE, *_FALSE):
        raise ValueError(f"{key} is {text!r}: say true or false")
    return text in _TRUE if text else default


def _checkpoint(text: str) -> Checkpoint | None:
    if not text or text.lower() in ("false", "no"):
        return None
    if text.lower() in ("true", "yes"):
        return Checkpoint()
    return Checkpoint(lost=_finite(text, "checkpoint"))


def _moment(value: object) -> float:
    """Return Unix seconds of a number or of an ISO 8601 time, which is UTC where it names no zone."""
    if isinstance(value, int | float):
        return _finite(str(value), "the time")
    text = str(value).strip()
    try:
        return _finite(text, "the time")
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time: write Unix seconds or 2026-01-31 08:00:00") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
