"""What the pretended account sees of AWS's facts: prices (us-east-1's of 2026), quotas, Debian's image."""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

ACCOUNT = "123456789012"
ACCESS_KEY, SECRET_KEY = "AKIAATOLLTESTACCOUNT", "not/a/real/secret/of/anybody"
DEBIAN_OWNER = "136693071363"
DEBIAN_AMI = "ami-0debian12amd64000"
PARAMETERS = {"/aws/service/debian/release/12/latest/amd64": DEBIAN_AMI}
IMAGE_GIB = 8

ON_DEMAND = {
    "t2.micro": "0.0116", "t3.nano": "0.0052", "t3.micro": "0.0104", "t3.small": "0.0208", "t3.medium": "0.0416",
    "t3.large": "0.0832", "t3.xlarge": "0.1664", "t3a.medium": "0.0376", "c6i.large": "0.0850", "c6i.xlarge": "0.1700",
    "g4dn.xlarge": "0.5260", "g4dn.2xlarge": "0.7520", "g4dn.12xlarge": "3.9120", "g5.xlarge": "1.0060",
    "g5.2xlarge": "1.2120", "g6.xlarge": "0.8048", "g6e.xlarge": "1.8610", "p4d.24xlarge": "21.9576420000",
    "p5.48xlarge": "55.0400000000",
}  # fmt: skip

QUOTAS = {
    "L-1216C47A": ("Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", 64.0),
    "L-34B43A08": ("All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests", 32.0),
    "L-DB2E81BA": ("Running On-Demand G and VT instances", 16.0),
    "L-3819A6DF": ("All G and VT Spot Instance Requests", 8.0),
    "L-417A185B": ("Running On-Demand P instances", 0.0),
    "L-7212CCBC": ("All P4, P3 and P2 Spot Instance Requests", 0.0),
    "L-0263D0A3": ("EC2-VPC Elastic IPs", 5.0),
    "L-86CE4B96": ("Running Dedicated t3 Hosts", 2.0),
}


def spot_price(shape: str, zone: str) -> str | None:
    """Return a plausible spot price: a third of on-demand, a little other in each zone."""
    listed = ON_DEMAND.get(shape)
    return listed and f"{Decimal(listed) * (30 + 3 * (ord(zone[-1]) - 97)) / 100:.6f}"


def quotas() -> list[dict[str, Any]]:
    """Return the account's quotas as Service Quotas tells them."""
    return [
        {"ServiceCode": "ec2", "ServiceName": "Amazon Elastic Compute Cloud (Amazon EC2)", "QuotaCode": code,
         "QuotaName": name, "Value": value, "Unit": "None", "Adjustable": True, "GlobalQuota": False}
        for code, (name, value) in QUOTAS.items()
    ]  # fmt: skip


def products(region: str, types: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the region's price list documents, and the ones beside them that are easily mistaken for them."""
    for shape, price in ON_DEMAND.items():
        yield document(region, shape, types[shape], price)
        yield document(region, shape, types[shape], f"{Decimal(price) * 2:.10f}", operatingSystem="Windows")
        yield document(region, shape, types[shape], f"{Decimal(price) * 3:.10f}", tenancy="Dedicated")
        yield document(region, shape, types[shape], price, capacitystatus="UnusedCapacityReservation")
        yield document(region, shape, types[shape], "0.0000000000", capacitystatus="AllocatedCapacityReservation")
        yield document(region, shape, types[shape], f"{Decimal(price) * 9:.10f}", preInstalledSw="SQL Ent")
        yield document(region, shape, types[shape], f"{Decimal(price) * 7:.10f}", marketoption="CapacityBlock")


def document(region: str, shape: str, kind: dict[str, Any], price: str, **other: str) -> dict[str, Any]:
    """Return one document in the form of the price list API."""
    sku = f"SKU{abs(hash((shape, tuple(other.items()))))}"
    gpus = kind.get("GpuInfo", {}).get("Gpus", [])
    attributes = {
        "servicecode": "AmazonEC2", "location": "EU (Frankfurt)", "locationType": "AWS Region", "regionCode": region,
        "instanceType": shape, "currentGeneration": "Yes",
        "instanceFamily": "GPU instance" if gpus else "General purpose",
        "vcpu": str(kind["VCpuInfo"]["DefaultVCpus"]), "memory": f"{kind['MemoryInfo']['SizeInMiB'] / 1024:,g} GiB",
        "operatingSystem": "Linux", "tenancy": "Shared", "preInstalledSw": "NA", "capacitystatus": "Used",
        "licenseModel": "No License required", "marketoption": "OnDemand", "operation": "RunInstances",
        "usagetype": f"EUC1-BoxUsage:{shape}", "servicename": "Amazon Elastic Compute Cloud",
    }  # fmt: skip
    if gpus:
        attributes["gpu"] = str(gpus[0]["Count"])
    term, rate = f"{sku}.JRTCKXETXF", f"{sku}.JRTCKXETXF.6YS6EN2CT7"
    dimension = {
        "unit": "Hrs", "endRange": "Inf", "beginRange": "0", "description": f"${price} per On Demand {shape}",
        "appliesTo": [], "rateCode": rate, "pricePerUnit": {"USD": price},
    }  # fmt: skip
    terms = {"OnDemand": {term: {"priceDimensions": {rate: dimension}, "sku": sku, "offerTermCode": "JRTCKXETXF",
             "effectiveDate": "2026-11-01T00:00:00Z", "termAttributes": {}}}}  # fmt: skip
    product = {"productFamily": "Compute Instance", "attributes": attributes | other, "sku": sku}
    return {"product": product, "serviceCode": "AmazonEC2", "terms": terms, "version": "20261101000000"}


def listed(region: str, types: dict[str, Any], filters: list[dict[str, str]]) -> list[str]:
    """Return the documents that pass GetProducts' filters."""
    wanted = {each["Field"]: each["Value"] for each in filters}
    return [
        json.dumps(each)
        for each in products(region, types)
        if all(each["product"]["attributes"].get(field) == value for field, value in wanted.items())
    ]
