import pytest

from providers.aws.quotas import BUCKETS, limit_of, limits


@pytest.mark.parametrize(
    ("shape", "spot", "code"),
    [
        ("t3.micro", False, "L-1216C47A"),
        ("c7g.large", True, "L-34B43A08"),
        ("im4gn.large", False, "L-1216C47A"),
        ("g5.xlarge", False, "L-DB2E81BA"),
        ("gr6.4xlarge", True, "L-3819A6DF"),
        ("vt1.3xlarge", False, "L-DB2E81BA"),
        ("p4d.24xlarge", True, "L-7212CCBC"),
        ("p5en.48xlarge", True, "L-C4BD4855"),
        ("p5.48xlarge", False, "L-417A185B"),
        ("trn1.2xlarge", False, "L-2C3B7624"),
        ("inf2.xlarge", False, "L-1945791B"),
        ("dl1.24xlarge", False, "L-6E869C2A"),
        ("x2idn.16xlarge", False, "L-7295265B"),
        ("hpc7a.96xlarge", False, "L-F7808C92"),
        ("u7i-12tb.224xlarge", False, "L-43DA4232"),
    ],
)
def test_each_family_counts_to_one_limit(shape: str, spot: bool, code: str) -> None:
    assert [bucket.code for bucket in BUCKETS if bucket.holds(shape, spot)] == [code]
    assert code in limit_of(shape, spot)


def test_a_family_nobody_knows_counts_to_none() -> None:
    assert limit_of("mac1.metal", False) == ""


def test_limits_are_those_of_running_machines_only() -> None:
    told = [{"QuotaCode": "L-DB2E81BA", "Value": 16.0}, {"QuotaCode": "L-0263D0A3", "Value": 5.0}]
    (limit,) = limits(told)
    assert (limit.limit, limit.counts, limit.spot, limit.used) == (16, "cpu", False, None)
    assert limit.name == limit_of("g5.xlarge", False)
