import json
from typing import Any

import pytest

from atoll.errors import Invalid
from atoll.group import Provider
from atoll.money import micros
from atoll.price import Price, PriceList
from atoll.slots import GIB
from providers.prices.file import COLUMNS, FORMAT, Regional, choose, read, read_csv, write

PRICES = (
    Price(shape="m5.large", amount=micros(0.096), cpu=2000, memory=8 * GIB),
    Price(shape="m5.large", amount=micros(0.0351), zone="us-east-1a", spot=True),
    Price(shape="g6", amount=micros(0.8), gpus=1, gpu_model="L4", gpu_memory=24 * GIB),
)
LISTED = PriceList(provider="", source="price list API", currency="EUR", at=1_790_000_000.0, prices=PRICES)
AWS = Provider(name="work", kind="aws", settings={"region": "us-east-1"})
SIM = Provider(name="sim", kind="sim")


def document(**changes: Any) -> str:
    row = {"shape": "a", "price": 0.1}
    plain = {"format": FORMAT, "issued_at": "2026-11-02T10:00:00Z", "lists": [{"kind": "aws", "prices": [row]}]}
    return json.dumps({**plain, **changes})


def test_what_is_written_reads_back_equal() -> None:
    lists = [Regional(kind="aws", region="us-east-1", listed=LISTED), Regional(kind="sim", region="", listed=LISTED)]
    assert read(write(lists, 1_790_000_100.0, "here")) == tuple(lists)


def test_date_and_source_of_the_document_are_those_of_its_lists() -> None:
    (regional,) = read(document(source="a bazaar"))
    assert (regional.listed.source, regional.listed.at) == ("a bazaar", 1_793_613_600.0)
    (regional,) = read(document(issued_at="2026-11-02T11:00:00+01:00"))
    assert regional.listed.at == 1_793_613_600.0


def test_zero_and_less_are_read_for_the_checks_to_drop() -> None:
    (regional,) = read(document(lists=[{"kind": "aws", "prices": [{"shape": "a", "price": -1}]}]))
    assert regional.listed.prices[0].amount == -micros(1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[" * 200_000, "not JSON"),
        ("[]", "must be a mapping"),
        (document(format="atoll-prices/9"), "'atoll-prices/9'"),
        (document(issued_at=""), "prices.issued_at is ''"),
        (document(issued_at="yesterday"), "'yesterday', not a date"),
        (document(lists=[]), "no lists"),
        (document(lists=[{"prices": []}]), "prices.lists[0].kind is missing"),
        (document(lists=[{"kind": "aws", "prices": []}]), "1 to 200000 rows"),
        (document(lists=[{"kind": "aws", "prices": [{"price": 1}]}]), "prices.lists[0].prices[0].shape is missing"),
        (document(lists=[{"kind": "aws", "prices": [{"shape": "a"}]}]), "prices[0].price must be an amount"),
        (document(lists=[{"kind": "aws", "prices": [{"shape": "a", "price": "1"}]}]), "not '1'"),
        (document(lists=[{"kind": "aws", "prices": [{"shape": "a", "price": float("nan")}]}]), "not nan"),
        (document(lists=[{"kind": "aws", "prices": [{"shape": "a", "price": 1, "zoen": "x"}]}]), "unknown key 'zoen'"),
        (document(lsts=[]), "unknown key 'lsts'"),
    ],
)
def test_what_is_no_price_file_is_refused_at_its_place(text: str, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        read(text)
    assert message in caught.value.message
    assert caught.value.hint


def test_lists_go_to_providers_of_their_kind_and_region() -> None:
    other = Provider(name="west", kind="aws", settings={"region": "us-west-2"})
    here = Regional(kind="aws", region="us-east-1", listed=LISTED)
    everywhere = Regional(kind="sim", region="", listed=LISTED)
    pairs = choose([here, everywhere], [AWS, other, SIM])
    assert [(provider.name, listed.provider) for provider, listed in pairs] == [("work", "work"), ("sim", "sim")]
    assert [provider.name for provider, _ in choose([here, everywhere], [AWS, other, SIM], "sim")] == ["sim"]
    with pytest.raises(Invalid, match="no list for west: it holds aws us-east-1, sim"):
        choose([here, everywhere], [AWS, other, SIM], "west")


def test_a_named_provider_without_a_region_gets_the_only_list_of_its_kind() -> None:
    plain = Provider(name="plain", kind="aws")
    east, west = (Regional(kind="aws", region=name, listed=LISTED) for name in ("us-east-1", "us-west-2"))
    with pytest.raises(Invalid, match="no list for any provider here"):
        choose([east], [plain])
    assert len(choose([east], [plain], "plain")) == 1
    with pytest.raises(Invalid, match="2 lists for provider plain"):
        choose([east, west], [plain], "plain")


def test_a_csv_is_read() -> None:
    text = ",".join(COLUMNS) + "\nm5.large,2,8.0,0,,0.096\ng5g.xlarge,4,8,1,T4G,0.42\n"
    listed = read_csv(text, "my.csv", 5.0)
    assert (listed.source, listed.at, listed.currency) == ("my.csv", 5.0, "USD")
    assert listed.prices == (
        Price(shape="m5.large", amount=micros(0.096), cpu=2000, memory=8 * GIB),
        Price(shape="g5g.xlarge", amount=micros(0.42), cpu=4000, memory=8 * GIB, gpus=1, gpu_model="T4G"),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'instance_type'"),
        ("instance_type,price\n", "unknown column 'price'"),
        ("instance_type,vcpus\n", "no column 'on_demand_usd_per_hour'"),
        (",".join(COLUMNS) + "\n", "no rows"),
        (",".join(COLUMNS) + "\na,2,8,0,,cheap\n", "line 2 of the CSV: on_demand_usd_per_hour is 'cheap'"),
        (",".join(COLUMNS) + "\na,2,8,0,,inf\n", "'inf'"),
        (",".join(COLUMNS) + "\na,-2,8,0,,1\n", "line 2 of the CSV: vcpus is '-2'"),
        (",".join(COLUMNS) + '\n"' + "a" * 200_000 + '",2,8,0,,1\n', "the CSV cannot be read"),
        (",".join(COLUMNS) + "\n,2,8,0,,1\n", "line 2 of the CSV names no instance_type"),
    ],
)
def test_what_is_no_such_csv_is_refused(text: str, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_csv(text, "my.csv", 5.0)
    assert message in caught.value.message
