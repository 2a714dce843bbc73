"""Reading traces: the public ones' forms and our own, and what is wrong in them by its line."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.errors import Invalid
from atoll.session import Checkpoint, SessionType
from atoll.slots import GIB, MIB, GpuRequest, Request
from federation.simulate.model import Job
from federation.simulate.traces import dump, read, window

PHILLY = """submitted_at,duration_s,gpus,cluster
2017-10-07 00:00:10,600,8,a
2017-10-07 00:00:00,60,1,a
2017-10-07 00:01:00,0,1,a
2017-10-07 00:02:00,30,2,b
"""
OPENB = """name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time
pod-0,12000,16384,1,460,T4|P100,LS,Running,0,500,20
pod-1,6000,12288,2,1000,,LS,Running,30,90,30
pod-2,4000,1024,0,0,,BE,Failed,40,60,
"""


def written(folder: Path, text: str, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_the_philly_trace(tmp_path: Path) -> None:
    jobs = read(written(tmp_path, PHILLY), cluster="a")
    assert [(job.at, job.duration_s, job.request.gpu.milli) for job in jobs] == [
        (1507334400.0, 60.0, 1000),
        (1507334410.0, 600.0, 8000),
    ]
    assert jobs[1].request == Request(32000, 256 * GIB, 0, GpuRequest(8000))
    assert len(read(tmp_path / "trace.csv")) == 3


def test_the_openb_trace(tmp_path: Path) -> None:
    first, second = read(written(tmp_path, OPENB))
    assert (first.at, first.duration_s) == (0.0, 480.0)
    assert first.request == Request(12000, 16384 * MIB, 0, GpuRequest(460, ("P100", "T4")))
    assert second.request.gpu == GpuRequest(2000)


def test_our_own_form_as_csv(tmp_path: Path) -> None:
    text = "at,duration_s,cpu,gpu,memory,checkpoint,spot\n2026-01-31 08:00,90,2,,4GiB,true,no\n5,1,,0.5,,30,\n"
    second, first = read(written(tmp_path, text))
    assert (first.at, first.request) == (1769846400.0, Request(2000, 4 * GIB))
    assert (first.checkpoint, first.spot) == (Checkpoint(), False)
    assert (second.request.gpu.milli, second.checkpoint) == (500, Checkpoint(lost=30.0))


def test_where_it_may_run_as_csv(tmp_path: Path) -> None:
    text = "at,duration_s,cpu,sites,labels,tags\n0,90,2,hall|annex,floor=2|room=b,team=red\n"
    (job,) = read(written(tmp_path, text))
    assert (job.sites, job.labels, job.tags) == (("hall", "annex"), (("floor", "2"), ("room", "b")), ("team=red",))


def test_a_window_counts_from_the_first_job() -> None:
    jobs = [Job(id=str(n), at=n * 86400.0, duration_s=1, request=Request()) for n in range(5)]
    assert [job.id for job in window(jobs, days=2, skip_days=1)] == ["1", "2"]
    assert window([], days=1) == []


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "a,b\n1,2\n", "columns are a, b"),
        ("t.csv", "at,duration_s,cpu\n0,10,1\n0,-5,1\n", "line 3: duration_s is -5"),
        ("t.csv", "at,duration_s,cpu\nsoon,10,1\n", "line 2: 'soon' is no time"),
        ("t.csv", "at,duration_s,cpu\n0,nan,1\n", "line 2: duration_s is 'nan'"),
        ("t.csv", "at,duration_s,cpu\n0,10,many\n", "line 2: 'many' is not a number of cores"),
        ("t.csv", "at,duration_s,cpu\n0,10,\n", "line 2: asks for neither cpu nor gpu"),
        ("t.csv", "at,duration_s,cpu,spot\n0,10,1,perhaps\n", "line 2: spot is 'perhaps'"),
        ("t.csv", "at,duration_s,cpu,labels\n0,10,1,red\n", "line 2: labels have 'red'"),
        ("t.csv", "at,duration_s,cpu,id\n0,10,1,a\n0,10,1,a\n", "1 jobs with the id of another"),
        ("t.csv", "at,duration_s,cpu\n", "holds no job"),
        ("t.csv", "submitted_at,duration_s,gpus\nx,10,1\n", "line 2: 'x' is no time"),
        ("t.jsonl", '{"at": 0, "duration_s": 1, "cpu": 1}\n{"at": 1\n', "line 2: is not JSON"),
        ("t.jsonl", "[1]\n", "line 1: is no JSON object"),
        ("t.jsonl", '{"duration_s": 1, "cpu": 1}\n', "line 1: has no 'at'"),
    ],
)
def test_what_is_wrong_is_told_by_its_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(Invalid, match=name) as caught:
        read(written(tmp_path, text, name))
    assert message in caught.value.message


@given(
    st.builds(
        Job,
        id=st.from_regex("[a-z][a-z0-9-]{0,9}", fullmatch=True),
        at=st.floats(0, 2e9),
        duration_s=st.floats(0.001, 1e6),
        request=st.builds(
            Request,
            cpu=st.integers(1, 10**6),
            memory=st.integers(1, 2**40),
            disk=st.integers(0, 2**40),
            gpu=st.builds(
                GpuRequest,
                milli=st.integers(1, 8000),
                models=st.sampled_from(((), ("L4",), ("L4", "T4"))),
                memory=st.integers(0, 2**36),
                memory_max=st.integers(0, 2**36),
                driver=st.sampled_from(((), (550,), (550, 54, 15))),
            ),
        ),
        nodes=st.integers(1, 9),
        project=st.sampled_from(("", "vision")),
        expected_s=st.none() | st.floats(1, 1e6),
        checkpoint=st.none()
        | st.builds(Checkpoint, lost=st.floats(0, 1000), every=st.floats(0, 1000), grace=st.floats(0, 1000)),
        spot=st.booleans(),
        priority=st.integers(-9, 9),
        max_price=st.none() | st.integers(0, 10**8),
        max_total=st.none() | st.integers(0, 10**8),
        max_wait_s=st.none() | st.floats(0, 1e6),
        deadline_s=st.none() | st.floats(1, 1e6),
        preemptible=st.booleans(),
        protect=st.booleans(),
        protect_after_s=st.none() | st.floats(0, 1e6),
        sites=st.sampled_from(((), ("hall",), ("hall", "annex"))),
        groups=st.sampled_from(((), ("own", "burst"))),
        labels=st.sampled_from(((), (("floor", "2"), ("room", "a=b|c")))),
        near=st.sampled_from(("", "hall")),
        data=st.integers(0, 2**50),
        together=st.booleans(),
        spread=st.booleans(),
        type=st.sampled_from(tuple(map(str, SessionType))),
        owner=st.sampled_from(("", "ada")),
        tags=st.sampled_from(((), ("kind=long", "odd=a|b"))),
    )
)
def test_what_is_saved_reads_back_whole(tmp_path_factory: pytest.TempPathFactory, job: Job) -> None:
    path = written(tmp_path_factory.mktemp("trace"), json.dumps(dump(job)) + "\n", "t.jsonl")
    assert read(path) == [job]
