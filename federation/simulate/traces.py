"""Traces: who came when, asked for what, and ran for how long; read from public traces and from our own history.

Our own form, written by `atoll simulate --save`, is JSON lines (`.jsonl`) or CSV with these columns, of which only
`at`, `duration_s` and one of `cpu` and `gpu` must be there:

    at           submission: Unix seconds, or an ISO 8601 time (UTC where it names no zone)
    duration_s   seconds that it ran for, undisturbed
    cpu, gpu     cores and devices a member (0.5 is half of one); memory: 16GiB
    gpu_models   models that will do: T4|L4; gpu_memory, gpu_memory_max: bytes of each; driver: the oldest that will do
    nodes, project, id, expected_s, priority, max_price (units an hour), max_total, max_wait_s, deadline_s
    spot         false: refuses spot machines
    preemptible, protect, protect_after_s
    checkpoint   true, or the seconds of work that a move costs: it may be moved; checkpoint_every_s, checkpoint_grace_s
    sites, groups, labels     where it may run: hall|annex, floor=2|room=b
    near, data (bytes there), together, spread
    type, owner, tags         for policies; tags as labels

Where a column may have several texts, JSON may also have a list.
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
    return Job(
        id=_text(row, "id", f"line-{number}"),
        at=_moment(row["at"]),
        duration_s=_positive(row["duration_s"], "duration_s"),
        request=_asks(row),
        nodes=int(_text(row, "nodes", "1")),
        project=_text(row, "project"),
        expected_s=_number(row, "expected_s"),
        priority=int(_text(row, "priority", "0")),
        spot=_flag(row, "spot", default=True),
        preemptible=_flag(row, "preemptible", default=False),
        protect=_flag(row, "protect", default=False),
        protect_after_s=_number(row, "protect_after_s"),
        checkpoint=_checkpoint(row),
        max_price=_money(row, "max_price"),
        max_total=_money(row, "max_total"),
        max_wait_s=_number(row, "max_wait_s"),
        deadline_s=_number(row, "deadline_s"),
        sites=_texts(row, "sites"),
        groups=_texts(row, "groups"),
        labels=tuple(_pair(each) for each in _texts(row, "labels")),
        near=_text(row, "near"),
        data=parse_bytes(_text(row, "data", "0")),
        together=_flag(row, "together", default=False),
        spread=_flag(row, "spread", default=False),
        type=_text(row, "type", "batch"),
        owner=_text(row, "owner"),
        tags=_texts(row, "tags"),
    )


def _asks(row: Row) -> Request:
    gpu, cpu, memory = parse_milli(_text(row, "gpu", "0")), _text(row, "cpu"), _text(row, "memory")
    if not gpu and not cpu:
        raise ValueError("asks for neither cpu nor gpu")
    share = max(1, gpu) / 1000
    return Request(
        parse_milli(cpu) if cpu else round(CPU_PER_GPU * share),
        parse_bytes(memory) if memory else (round(MEMORY_PER_GPU * share) if gpu else 256 * MIB),
        parse_bytes(_text(row, "disk", "0")),
        GpuRequest(
            gpu,
            tuple(sorted(_texts(row, "gpu_models"))),
            parse_bytes(_text(row, "gpu_memory", "0")),
            parse_bytes(_text(row, "gpu_memory_max", "0")),
            tuple(int(part) for part in _text(row, "driver").split(".") if part),
        ),
    )


def dump(job: Job) -> dict[str, object]:
    """Return a job as a line of our own form; what is as usual is left out."""
    request, gpu, keeps = job.request, job.request.gpu, job.checkpoint
    row: dict[str, object] = {"id": job.id, "at": job.at, "duration_s": job.duration_s, "cpu": request.cpu / 1000}
    row["memory"] = request.memory
    other: dict[str, object] = {
        "disk": request.disk,
        "gpu": gpu.milli / 1000,
        "gpu_models": list(gpu.models),
        "gpu_memory": gpu.memory,
        "gpu_memory_max": gpu.memory_max,
        "driver": ".".join(map(str, gpu.driver)),
        "nodes": job.nodes if job.nodes > 1 else 0,
        "labels": [f"{name}={value}" for name, value in job.labels],
        "type": job.type if job.type != "batch" else "",
    }
    for name in ("project", "priority", "preemptible", "protect", "near", "data", "together", "spread", "owner"):
        other[name] = getattr(job, name)
    other |= {name: list(getattr(job, name)) for name in ("sites", "groups", "tags")}
    row |= {name: value for name, value in other.items() if value}
    limits: dict[str, object] = {
        name: getattr(job, name) for name in ("expected_s", "max_wait_s", "deadline_s", "protect_after_s")
    }
    for name, amount in (("max_price", job.max_price), ("max_total", job.max_total)):
        limits[name] = None if amount is None else amount / money.PER_UNIT
    if keeps:
        usual = Checkpoint()
        limits["checkpoint"] = keeps.lost
        limits["checkpoint_every_s"] = None if keeps.every == usual.every else keeps.every
        limits["checkpoint_grace_s"] = None if keeps.grace == usual.grace else keeps.grace
    row |= {name: value for name, value in limits.items() if value is not None}
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


def _texts(row: Row, key: str) -> tuple[str, ...]:
    value = row.get(key)
    if isinstance(value, list):
        return tuple(str(each) for each in value)
    return tuple(filter(None, _text(row, key).split("|")))


def _pair(text: str) -> tuple[str, str]:
    name, mark, value = text.partition("=")
    if not mark:
        raise ValueError(f"labels have {text!r}: write name=value")
    return name, value


def _money(row: Row, key: str) -> int | None:
    amount = _number(row, key)
    return None if amount is None else money.micros(amount)


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


def _checkpoint(row: Row) -> Checkpoint | None:
    text, usual = _text(row, "checkpoint").lower(), Checkpoint()
    if not text or text in ("false", "no"):
        return None
    every, grace = _number(row, "checkpoint_every_s"), _number(row, "checkpoint_grace_s")
    return Checkpoint(
        lost=usual.lost if text in ("true", "yes") else _finite(text, "checkpoint"),
        every=usual.every if every is None else every,
        grace=usual.grace if grace is None else grace,
    )


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
