"""Stands before moto's server and does as EC2 does where moto does otherwise; injects faults. WSGI."""

import base64
import io
import json
import re
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import parse_qsl, urlencode
from xml.sax.saxutils import escape

from moto.ec2.models import ec2_backends
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS, INSTANCE_TYPES

from tests.clouds.aws import facts, rules
from tests.clouds.aws.faults import CALLS, Faults
from tests.clouds.aws.hall import Hall, Record, digest
from tests.clouds.aws.rules import Refusal

App = Callable[[dict[str, Any], Any], Iterable[bytes]]
_SPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"
_CREDENTIAL = re.compile(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/")
_JSON = "application/x-amz-json-1.1"


class Call:
    """One request: what it asks for, of which service, in which region."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self.environ = environ
        self.body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        found = _CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
        self.key, self.region, self.service = found.groups() if found else ("", "", "")
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        self.json: dict[str, Any] = json.loads(self.body or b"{}") if target else {}
        self.query = {} if target else dict(parse_qsl(self.body.decode("latin1"), keep_blank_values=True))
        self.action = target.rpartition(".")[2] or self.query.get("Action", "")

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.query.items() if re.fullmatch(rf"{name}\.\d+", key)]

    def filters(self) -> dict[str, list[str]]:
        numbers = [m[1] for key in self.query if (m := re.fullmatch(r"Filter\.(\d+)\.Name", key))]
        return {self.query[f"Filter.{n}.Name"]: self.values(rf"Filter\.{n}\.Value") for n in numbers}

    def refilter(self, name: str, values: list[str]) -> None:
        """Ask moto with other values for a filter."""
        number = next(k.split(".")[1] for k, v in self.query.items() if k.startswith("Filter.") and v == name)
        kept = {k: v for k, v in self.query.items() if not k.startswith(f"Filter.{number}.Value")}
        self.query = kept | {f"Filter.{number}.Value.{n}": value for n, value in enumerate(values or ["none"], 1)}


class Overlay:
    """One account. `page` bounds what a listing of instances gives at once (0: as asked)."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.lock = threading.RLock()
        self.faults = Faults()
        self.hall: Hall | None = None
        self.page = 0
        self.keys = {facts.ACCESS_KEY}
        self.calls: list[str] = []

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        call = Call(environ)
        with self.lock:
            try:
                status, headers, body = self._serve(call)
            except Refusal as refusal:
                status, headers, body = _refused(call, refusal)
        start(status, [*headers, ("Content-Length", str(len(body)))])
        return [body]

    @property
    def _open(self) -> Hall:
        assert self.hall is not None, "the server is started"
        return self.hall

    def _serve(self, call: Call) -> tuple[str, list[tuple[str, str]], bytes]:
        self.calls.append(call.action)
        if call.key not in self.keys:
            raise Refusal(
                "AuthFailure", "AWS was not able to validate the provided access credentials", "401 Unauthorized"
            )
        self._open.refresh()
        self._faulty(call)
        own = getattr(self, f"_{call.action}", None)
        return own(call) if own else self._moto(call)

    def _faulty(self, call: Call) -> None:
        name = CALLS.get(call.action, call.action)
        if self.faults.strike("auth", call=name):
            raise Refusal("UnauthorizedOperation", f"You are not authorized to {call.action}.", "403 Forbidden")
        if fault := self.faults.strike("throttle", call=name):
            after = str(round(fault.get("retry_after", 5)))
            raise Refusal(
                "RequestLimitExceeded", "Request limit exceeded.", "503 Service Unavailable", Retry_After=after
            )

    def _moto(self, call: Call) -> tuple[str, list[tuple[str, str]], bytes]:
        body = urlencode(call.query).encode() if call.query else call.body
        environ = call.environ | {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        got: dict[str, Any] = {}
        answer = b"".join(
            self._app(environ, lambda status, headers, _=None: got.update(status=status, headers=headers))
        )
        return got["status"], [h for h in got["headers"] if h[0].lower() != "content-length"], answer

    # --- instances ---

    def _RunInstances(self, call: Call) -> tuple[str, list[tuple[str, str]], bytes]:
        query = {k: v for k, v in call.query.items() if k != "DryRun"}
        zone, spot = query.get("Placement.AvailabilityZone", ""), "InstanceMarketOptions.MarketType" in query
        lost = self.faults.strike("lost_reply", call="create", zone=zone, spot=spot)
        if lost and not lost.get("after_effect", True):
            raise ConnectionResetError("the request never arrived")
        answer = self._run(call, query, zone, spot)
        if lost:
            raise ConnectionResetError("the answer is lost")
        return answer

    def _run(
        self, call: Call, query: dict[str, str], zone: str, spot: bool
    ) -> tuple[str, list[tuple[str, str]], bytes]:
        if (known := self._open.by_token.get((call.region, query.get("ClientToken", "")))) is not None:
            return self._again(known, query)
        self._check(call, query, zone)
        if call.query.get("DryRun") == "true":
            return self._moto(call)
        self._exhausted(query, zone, spot)
        status, headers, body = self._moto(call)
        if status.startswith("200"):
            found = re.search(rb"<instanceId>(i-[0-9a-f]+)</instanceId>", body)
            assert found
            slow = self.faults.strike("slow_boot", call="create", zone=zone, spot=spot)
            record = Record(
                id=found[1].decode(),
                region=call.region,
                token=query.get("ClientToken", ""),
                request=digest(query),
                answer=body,
                user_data=rules.user_data(query),
                on_shutdown=query.get("InstanceInitiatedShutdownBehavior", "stop"),
                spot=spot,
                boots_at=time.monotonic() + (slow["extra_s"] if slow else 0.0),
            )
            self._open.add(record)
        return status, headers, body

    def _again(self, known: Record, query: dict[str, str]) -> tuple[str, list[tuple[str, str]], bytes]:
        if known.request != digest(query):
            raise Refusal(
                "IdempotentParameterMismatch",
                "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
            )
        if known.state == "terminated":
            raise Refusal("IdempotentInstanceTerminated", "The instance of this client token has been terminated.")
        return "200 OK", [("Content-Type", "text/xml")], known.answer

    def _check(self, call: Call, query: dict[str, str], zone: str) -> None:
        backend = ec2_backends[facts.ACCOUNT][call.region]
        image = backend.amis.get(query["ImageId"]) if "ImageId" in query else None
        shape = query.get("InstanceType", "")
        offers = INSTANCE_TYPE_OFFERINGS["availability-zone"][call.region]
        zones = {each["Location"] for each in offers}
        offered = (
            shape not in INSTANCE_TYPES
            or not zone
            or zone not in zones
            or any(each["InstanceType"] == shape and each["Location"] == zone for each in offers)
        )
        rules.check(query, image, INSTANCE_TYPES.get(shape), zones, offered)
        for subnet in (v for k, v in query.items() if k.endswith("SubnetId")):
            if subnet in backend.subnets.get(zone, {}) or not zone:
                continue
            if any(subnet in found for found in backend.subnets.values()):
                raise Refusal("InvalidParameterValue", f"The availability zone of subnet {subnet} is not {zone}")
            raise Refusal("InvalidSubnetID.NotFound", f"The subnet ID '{subnet}' does not exist")

    def _exhausted(self, query: dict[str, str], zone: str, spot: bool) -> None:
        shape = query["InstanceType"]
        if self.faults.strike("no_capacity", call="create", zone=zone, spot=spot):
            raise Refusal(
                "InsufficientInstanceCapacity",
                f"We currently do not have sufficient {shape} capacity in the zone you requested ({zone}).",
                "500 Internal Server Error",
            )
        if self.faults.strike("quota", call="create", zone=zone, spot=spot):
            if spot:
                raise Refusal("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded")
            raise Refusal(
                "VcpuLimitExceeded",
                "You have requested more vCPU capacity than your current vCPU limit of 0 allows for the instance "
                "bucket that the specified instance type belongs to.",
            )

    def _DescribeInstances(self, call: Call) -> tuple[str, list[tuple[str, str]], bytes]:
        tokens = call.filters().get("client-token")
        if tokens is not None:
            known = [r.id for r in self._open.records.values() if r.token in tokens]
            call.refilter("client-token", known)
            call.query = {k: "instance-id" if v == "client-token" else v for k, v in call.query.items()}
        if self.page and "MaxResults" in call.query:
            call.query["MaxResults"] = str(min(int(call.query["MaxResults"]), self.page))
        status, headers, body = self._moto(call)
        if status.startswith("200") and (late := self.faults.strike("list_lag", call="describe")):
            body = self._as_of(body, time.monotonic() - late["lag_s"])
        return status, headers, body

    def _as_of(self, body: bytes, horizon: float) -> bytes:
        """Return a listing as it was then: without newer machines, with the states of then."""
        root = ET.fromstring(body)
        space = {"e": root.tag[1:].partition("}")[0]}
        ET.register_namespace("", space["e"])
        for reservation in root.findall("e:reservationSet/e:item", space):
            for instances in reservation.findall("e:instancesSet", space):
                for item in instances.findall("e:item", space):
                    record = self._open.records[item.findtext("e:instanceId", "", space)]
                    if record.created_at > horizon:
                        instances.remove(item)
                    elif (
                        record.changed_at > horizon and (name := item.find("e:instanceState/e:name", space)) is not None
                    ):
                        name.text = record.before
        return ET.tostring(root)

    def _changed(
        self, call: Call, word: str, change: Callable[[Record], None]
    ) -> tuple[str, list[tuple[str, str]], bytes]:
        """Check ids as EC2 does, change all or none, and answer in EC2's form."""
        ids = call.values("InstanceId")
        for each in ids:
            if not re.fullmatch(r"i-[0-9a-f]{8,17}", each):
                raise Refusal("InvalidInstanceID.Malformed", f'Invalid id: "{each}"')
        if missing := [each for each in ids if each not in self._open.records]:
            raise Refusal("InvalidInstanceID.NotFound", f"The instance ID '{missing[0]}' does not exist")
        records = [self._open.records[each] for each in ids]
        if call.query.get("DryRun") == "true":
            raise Refusal(
                "DryRunOperation", "Request would have succeeded, but DryRun flag is set.", "412 Precondition Failed"
            )
        before = {record.id: record.state for record in records}
        for record in records:
            change(record)
        items = "".join(
            f"<item><instanceId>{r.id}</instanceId><currentState><name>{r.state}</name></currentState>"
            f"<previousState><name>{before[r.id]}</name></previousState></item>"
            for r in records
        )
        return _xml(f"{word}Response", f"<instancesSet>{items}</instancesSet>")

    def _TerminateInstances(self, call: Call) -> tuple[str, list[tuple[str, str]], bytes]:
        dry = call.query.get("DryRun") == "true"
        fault = None if dry else self.faults.strike("terminate", call="terminate")
        if fault and not fault.get("silent"):
            raise Refusal("InternalError", "An internal error has occurred", "500 Internal Server Error")
        return self._changed(call, "TerminateInstances", (lambda record: None) if fault else self._open.terminate)

    def _StopInstances(self, call: Call) -> tuple[str, list[tuple[str, str]], bytes]:
        def stop(record: Record) -> None:
            if record.spot:
                raise Refusal(
                    "UnsupportedOperation",
                    f"You can't stop the Spot Instance '{record.id}' because it is associated with a one-time Spot "
                    "Instance request.",
                )
            if record.state not in ("running", "stopping", "stopped"):
                raise Refusal(
                    "IncorrectInstanceState",
                    f"The instance '{record.id}' is not in a state from which it can be stopped.",
                )
            if record.state == "running":
                self._open.stop(record)

        return self._changed(call, "StopInstances", stop)

    def _StartInstances(self, call: Call) -> tuple[str, list[tuple[str, str]], bytes]:
        def start(record: Record) -> None:
            if record.state not in ("pending", "running", "stopped"):
                raise Refusal(
                    "IncorrectInstanceState",
                    f"The instance '{record.id}' is not in a state from which it can be started.",
                )
            if record.state == "stopped":
                self._open.start(record)

        return self._changed(call, "StartInstances", start)

    def _GetConsoleOutput(self, call: Call) -> tuple[str, list[tuple[str, str]], bytes]:
        record = self._open.records.get(call.query.get("InstanceId", ""))
        if record is None:
            raise Refusal(
                "InvalidInstanceID.NotFound", f"The instance ID '{call.query.get('InstanceId')}' does not exist"
            )
        kind = INSTANCE_TYPES[self._open.moto(record).instance_type]
        if call.query.get("Latest") == "true" and kind.get("Hypervisor") != "nitro":
            raise Refusal(
                "UnsupportedOperation", "Retrieving the latest console output is not supported for this type."
            )
        printed = base64.b64encode(self._open.guests.console(record.id).encode()).decode()
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        inner = f"<instanceId>{record.id}</instanceId><timestamp>{now}</timestamp><output>{printed}</output>"
        return _xml("GetConsoleOutputResponse", inner)

    def _AssumeRole(self, call: Call) -> tuple[str, list[tuple[str, str]], bytes]:
        status, headers, body = self._moto(call)
        self.keys |= {found.decode() for found in re.findall(rb"<AccessKeyId>(\w+)</AccessKeyId>", body)}
        return status, headers, body

    # --- catalogues ---

    def _DescribeInstanceTypeOfferings(self, call: Call) -> tuple[str, list[tuple[str, str]], bytes]:
        if patterns := call.filters().get("instance-type"):
            call.refilter("instance-type", _matching(patterns))
        return self._moto(call)

    def _DescribeSpotPriceHistory(self, call: Call) -> tuple[str, list[tuple[str, str]], bytes]:
        zones = sorted({each["Location"] for each in INSTANCE_TYPE_OFFERINGS["availability-zone"][call.region]})
        wanted = call.filters().get("instance-type") or ["*"]
        now = datetime.now(UTC)
        rows = [
            (shape, zone, price, now - timedelta(hours=1))
            for shape in facts.ON_DEMAND
            if any(fnmatchcase(shape, pattern) for pattern in wanted)
            for zone in zones
            if (price := facts.spot_price(shape, zone))
        ]
        old = [(shape, zone, "9.990000", at - timedelta(days=1)) for shape, zone, _, at in rows]
        first, size = int(call.query.get("NextToken") or 0), int(call.query.get("MaxResults", 1000))
        everything = [*old, *rows]
        items = "".join(
            f"<item><instanceType>{shape}</instanceType><productDescription>Linux/UNIX</productDescription>"
            f"<spotPrice>{price}</spotPrice><timestamp>{at.strftime('%Y-%m-%dT%H:%M:%S.000Z')}</timestamp>"
            f"<availabilityZone>{zone}</availabilityZone></item>"
            for shape, zone, price, at in everything[first : first + size]
        )
        more = str(first + size) if first + size < len(everything) else ""
        inner = f"<spotPriceHistorySet>{items}</spotPriceHistorySet><nextToken>{more}</nextToken>"
        return _xml("DescribeSpotPriceHistoryResponse", inner)

    def _GetProducts(self, call: Call) -> tuple[str, list[tuple[str, str]], bytes]:
        filters = call.json.get("Filters", [])
        region = next((each["Value"] for each in filters if each["Field"] == "regionCode"), "us-east-1")
        found = facts.listed(region, INSTANCE_TYPES, filters)
        return _paged(call, {"FormatVersion": "aws_v1"}, "PriceList", found, 100)

    def _ListServiceQuotas(self, call: Call) -> tuple[str, list[tuple[str, str]], bytes]:
        if call.json.get("ServiceCode") != "ec2":
            raise Refusal("NoSuchResourceException", "The request failed because the specified service does not exist.")
        return _paged(call, {}, "Quotas", facts.quotas(), 100)

    def _GetParameter(self, call: Call) -> tuple[str, list[tuple[str, str]], bytes]:
        name = call.json.get("Name", "")
        if name not in facts.PARAMETERS:
            return self._moto(call)
        parameter = {"Name": name, "Type": "String", "Value": facts.PARAMETERS[name], "Version": 7,
                     "DataType": "aws:ec2:image"}  # fmt: skip
        return "200 OK", [("Content-Type", _JSON)], json.dumps({"Parameter": parameter}).encode()


def _matching(patterns: list[str]) -> list[str]:
    return [name for name in INSTANCE_TYPES if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _paged(
    call: Call, document: dict[str, Any], key: str, items: list[Any], most: int
) -> tuple[str, list[tuple[str, str]], bytes]:
    size = call.json.get("MaxResults", most)
    if not 1 <= size <= most:
        raise Refusal("InvalidParameterException", f"MaxResults must be between 1 and {most}")
    first = int(call.json.get("NextToken") or 0)
    document = document | {key: items[first : first + size]}
    if first + size < len(items):
        document["NextToken"] = str(first + size)
    return "200 OK", [("Content-Type", _JSON)], json.dumps(document).encode()


def _xml(name: str, inner: str) -> tuple[str, list[tuple[str, str]], bytes]:
    text = f'<{name} xmlns="{_SPACE}"><requestId>r-0</requestId>{inner}</{name}>'
    return "200 OK", [("Content-Type", "text/xml")], text.encode()


def _refused(call: Call, refusal: Refusal) -> tuple[str, list[tuple[str, str]], bytes]:
    headers = [(name.replace("_", "-"), value) for name, value in refusal.headers.items()]
    if call.json or "HTTP_X_AMZ_TARGET" in call.environ:
        said = json.dumps({"__type": refusal.code, "message": refusal.message})
        return refusal.status, [*headers, ("Content-Type", _JSON)], said.encode()
    error = f"<Error><Code>{refusal.code}</Code><Message>{escape(refusal.message)}</Message></Error>"
    if call.service == "sts":
        text = f"<ErrorResponse>{error}<RequestId>r-0</RequestId></ErrorResponse>"
    else:
        text = f"<Response><Errors>{error}</Errors><RequestID>r-0</RequestID></Response>"
    return refusal.status, [*headers, ("Content-Type", "text/xml")], text.encode()
