"""EC2's limits on running vCPUs: one for each group of families and way of paying. Pure.

Source: the codes of service `ec2` in AWS Service Quotas.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from providers.port import Limit

_STANDARD = (
    "a[0-9]*",
    "c[0-9]*",
    "d[0-9]*",
    "h[0-9]*",
    "i[0-9]*",
    "i[ms]*",
    "m[0-9]*",
    "r[0-9]*",
    "t[0-9]*",
    "z[0-9]*",
)
_G = ("g[0-9]*", "gr[0-9]*", "vt[0-9]*")
_P, _P5 = ("p[2346]*",), ("p5*",)


@dataclass(frozen=True, slots=True)
class Bucket:
    """The machine types that share one limit. `code` is AWS's for it."""

    code: str
    title: str
    spot: bool
    shapes: tuple[str, ...]

    @property
    def name(self) -> str:
        """Return the limit's name as `Driver.quota` and `Quota.name` give it."""
        return f"{self.title}, {'spot' if self.spot else 'on-demand'} vCPUs ({self.code})"

    def holds(self, shape: str, spot: bool) -> bool:
        """Say whether a machine type, paid for this way, counts here."""
        return spot is self.spot and any(fnmatchcase(shape, pattern) for pattern in self.shapes)


BUCKETS: tuple[Bucket, ...] = (
    Bucket("L-1216C47A", "standard families", False, _STANDARD),
    Bucket("L-34B43A08", "standard families", True, _STANDARD),
    Bucket("L-DB2E81BA", "G and VT families", False, _G),
    Bucket("L-3819A6DF", "G and VT families", True, _G),
    Bucket("L-417A185B", "P families", False, _P + _P5),
    Bucket("L-7212CCBC", "P families", True, _P),
    Bucket("L-C4BD4855", "P5 families", True, _P5),
    Bucket("L-7295265B", "X families", False, ("x*",)),
    Bucket("L-E3A00192", "X families", True, ("x*",)),
    Bucket("L-74FC7D96", "F families", False, ("f[0-9]*",)),
    Bucket("L-88CF9481", "F families", True, ("f[0-9]*",)),
    Bucket("L-1945791B", "Inf families", False, ("inf*",)),
    Bucket("L-B5D1601B", "Inf families", True, ("inf*",)),
    Bucket("L-2C3B7624", "Trn families", False, ("trn*",)),
    Bucket("L-6B0D517C", "Trn families", True, ("trn*",)),
    Bucket("L-6E869C2A", "DL families", False, ("dl*",)),
    Bucket("L-85EED4F7", "DL families", True, ("dl*",)),
    Bucket("L-F7808C92", "HPC families", False, ("hpc*",)),
    Bucket("L-43DA4232", "high-memory families", False, ("u-*", "u[0-9]*")),
)
_BY_CODE: Mapping[str, Bucket] = {bucket.code: bucket for bucket in BUCKETS}


def limits(told: Iterable[Mapping[str, Any]]) -> list[Limit]:
    """Return the limits among the quotas that Service Quotas told."""
    return [
        Limit(name=bucket.name, limit=int(quota["Value"]), counts="cpu", shapes=bucket.shapes, spot=bucket.spot)
        for quota in told
        if (bucket := _BY_CODE.get(quota["QuotaCode"]))
    ]


def limit_of(shape: str, spot: bool) -> str:
    """Return the name of the limit that a machine type counts to, "" where none is known."""
    return next((bucket.name for bucket in BUCKETS if bucket.holds(shape, spot)), "")
