"""Notices of clouds, from small real HTTP servers that insist on what the real services insist on."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from agent.probe import metadata
from agent.probe.metadata import MetadataWatch, Service
from agent.probe.notice import NoticeFile, find_notices

DATE = "Sat, 21 Nov 2026 10:00:00 GMT"
Answer = Callable[[str, str, Any], tuple[int, str]]


class Cloud:
    """Serves `answer(method, path, headers)`, with its own idea of the time."""

    def __init__(self, answer: Answer) -> None:
        self.asked: list[str] = []
        cloud = self

        class Request(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                cloud.asked.append(f"{self.command} {self.path}")
                status, body = answer(self.command, self.path, self.headers)
                self.send_response_only(status)
                self.send_header("Date", DATE)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            do_PUT = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Request)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], Cloud]]:
    clouds: list[Cloud] = []

    def start(answer: Answer) -> Cloud:
        clouds.append(Cloud(answer))
        return clouds[-1]

    yield start
    for cloud in clouds:
        cloud.close()


class Ec2:
    """IMDSv2: nothing without a token, and each token is good for `uses` questions."""

    def __init__(self) -> None:
        self.action = ""
        self.uses = 2
        self.tokens: dict[str, int] = {}

    def __call__(self, method: str, path: str, headers: Any) -> tuple[int, str]:
        if (method, path) == ("PUT", "/latest/api/token"):
            assert headers["X-aws-ec2-metadata-token-ttl-seconds"] == "21600"
            token = f"token-{len(self.tokens)}"
            self.tokens[token] = self.uses
            return 200, token
        token = headers.get("X-aws-ec2-metadata-token", "")
        if self.tokens.get(token, 0) <= 0:
            return 401, "Unauthorized"
        self.tokens[token] -= 1
        if path == "/latest/meta-data/spot/instance-action" and self.action:
            return 200, json.dumps({"action": self.action, "time": "2026-11-21T10:02:00Z"})
        return 404, ""


def test_aws_tells_of_an_interruption_by_its_own_clock(serve: Callable[[Answer], Cloud]) -> None:
    ec2 = Ec2()
    service = Service(serve(ec2).url)
    assert metadata.aws(service) is None
    ec2.action = "terminate"
    assert metadata.aws(service) == (120.0, "EC2 takes this spot machine back: terminate")
    with pytest.raises(OSError, match="401"):
        metadata.aws(service)  # the token's life is over
    assert metadata.aws(service) is not None
    assert len(ec2.tokens) == 2


@pytest.mark.parametrize(
    ("preempted", "maintenance", "seconds"),
    [
        ("FALSE", "NONE", None),
        ("FALSE", "MIGRATE_ON_HOST_MAINTENANCE", None),
        ("TRUE", "NONE", 30.0),
        ("FALSE", "TERMINATE_ON_HOST_MAINTENANCE", 3600.0),
    ],
)
def test_gcp(serve: Callable[[Answer], Cloud], preempted: str, maintenance: str, seconds: float | None) -> None:
    said = {
        "/computeMetadata/v1/instance/preempted": preempted,
        "/computeMetadata/v1/instance/maintenance-event": maintenance,
    }

    def answer(method: str, path: str, headers: Any) -> tuple[int, str]:
        return (200, said[path]) if headers.get("Metadata-Flavor") == "Google" else (403, "")

    notice = metadata.gcp(Service(serve(answer).url))
    assert (notice[0] if notice else None) == seconds


def event(kind: str, *, resources: list[str], before: str = "Sat, 21 Nov 2026 10:00:30 GMT") -> dict[str, Any]:
    return {"EventId": "e", "EventStatus": "Scheduled", "EventType": kind, "Resources": resources, "NotBefore": before}


@pytest.mark.parametrize(
    ("events", "seconds"),
    [
        ([], None),
        ([event("Freeze", resources=["vm-1"])], None),
        ([event("Preempt", resources=["vm-2"])], None),
        ([event("Freeze", resources=["vm-1"]), event("Preempt", resources=["vm-1"])], 30.0),
        ([event("Terminate", resources=["vm-2", "vm-1"])], 30.0),
        ([event("Reboot", resources=["vm-1"], before="")], 0.0),
    ],
)
def test_azure(serve: Callable[[Answer], Cloud], events: list[dict[str, Any]], seconds: float | None) -> None:
    def answer(method: str, path: str, headers: Any) -> tuple[int, str]:
        if headers.get("Metadata") != "true":
            return 400, ""
        if path.startswith("/metadata/instance/compute/name?"):
            return 200, "vm-1"
        assert path.startswith("/metadata/scheduledevents?api-version=")
        return 200, json.dumps({"DocumentIncarnation": 1, "Events": events})

    notice = metadata.azure(Service(serve(answer).url))
    assert (notice[0] if notice else None) == seconds


def test_the_watch_notices_within_a_look_and_survives_a_bad_service(serve: Callable[[Answer], Cloud]) -> None:
    said = [(500, "oops")]

    def answer(method: str, path: str, headers: Any) -> tuple[int, str]:
        return said[-1]

    cloud = serve(answer)
    watch = MetadataWatch("gcp", cloud.url, every_s=0.05)
    watch.start()
    try:
        wait(lambda: len(cloud.asked) >= 2)
        assert watch.check() is None
        said.append((200, "TRUE"))
        wait(lambda: watch.check() is not None)
        notice = watch.check()
        assert notice is not None
        assert notice[0] == metadata.SOON_S
        asked = len(cloud.asked)
        time.sleep(0.2)
        assert len(cloud.asked) <= asked + 1, "one notice is all there is"
    finally:
        watch.stop()


def wait(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_boot_script_says_where_to_look(serve: Callable[[Answer], Cloud]) -> None:
    assert find_notices({}) is None
    assert find_notices({"ATOLL_INSTANCE_CLOUD": "openstack"}) is None
    assert isinstance(find_notices({"ATOLL_INSTANCE_CLOUD": "aws", "ATOLL_INSTANCE_NOTICE": "/n"}), NoticeFile)
    cloud = serve(lambda method, path, headers: (200, "TRUE"))
    found = find_notices({"ATOLL_INSTANCE_CLOUD": "gcp", "ATOLL_INSTANCE_METADATA": cloud.url})
    assert isinstance(found, MetadataWatch)
    wait(lambda: found.check() is not None)
    found.stop()
