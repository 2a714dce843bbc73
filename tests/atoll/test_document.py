"""Documents: what is read, what is refused and how, and that dumping loses nothing."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll import document as doc
from atoll.document import session as doc_session
from atoll.errors import Invalid
from atoll.group import Group, GroupKind, HotTime, Orphans, Pools, Provider, ScaleDown, Size
from atoll.hours import Hours
from atoll.session import (
    AppAccess,
    AppRule,
    Checkpoint,
    CostLimits,
    Lifetime,
    Placement,
    Retry,
    SessionSpec,
    SessionType,
)
from atoll.site import Site
from atoll.slots import GIB, GpuRequest, Request

names = st.from_regex(r"[a-z0-9]([a-z0-9]{0,6})", fullmatch=True)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
seconds = st.one_of(st.integers(1, 10**6).map(float), st.floats(1, 10**6, allow_nan=False))
mappings = st.dictionaries(names, texts, max_size=3)
money = st.integers(0, 10**12)
gpus = st.builds(
    GpuRequest,
    milli=st.integers(1, 10**5),
    models=st.lists(st.sampled_from(["L4", "H100", "A10"]), max_size=2).map(tuple),
    memory=st.integers(0, 2**30),
    memory_max=st.one_of(st.just(0), st.integers(2**30, 2**50)),
    driver=st.lists(st.integers(0, 999), max_size=3).map(tuple),
)
hours = st.builds(
    Hours,
    days=st.tuples(st.integers(0, 6), st.integers(1, 7)).map(lambda d: tuple((d[0] + n) % 7 for n in range(d[1]))),
    start=st.integers(0, 719),
    end=st.integers(720, 1440),
    zone=st.sampled_from(["UTC", "Asia/Seoul", "America/Argentina/Buenos_Aires"]),
)
placements = st.builds(
    Placement,
    sites=st.lists(names).map(tuple),
    groups=st.lists(names).map(tuple),
    labels=mappings,
    near=names,
    data=st.integers(0, 2**50),
    together=st.booleans(),
).map(lambda placement: placement if placement.together else replace(placement, spread=True))
checkpoints = st.builds(
    Checkpoint,
    signal=st.sampled_from(doc_session.SIGNALS),
    exit_code=st.integers(1, 127),
    grace=st.integers(1, 3600).map(float),
    lost=seconds,
    every=seconds,
)
requests = st.builds(
    Request,
    cpu=st.integers(1, 10**6),
    memory=st.one_of(st.integers(0, 2**50), st.integers(0, 100).map(lambda n: n * GIB)),
    disk=st.integers(0, 2**50),
    gpu=st.one_of(st.just(GpuRequest()), gpus),
)
sessions = st.builds(
    SessionSpec,
    command=st.lists(texts, min_size=1, max_size=4).filter(lambda words: bool(words[0])).map(tuple),
    name=st.one_of(st.just(""), names),
    type=st.sampled_from(SessionType),
    workdir=texts,
    env=mappings,
    stdin=texts,
    resources=requests,
    nodes=st.integers(1, 64),
    placement=st.one_of(st.just(Placement()), placements),
    cost=st.builds(
        CostLimits,
        max_price=st.one_of(st.none(), money),
        max_total=st.one_of(st.none(), money),
        spot=st.booleans(),
    ),
    preemptible=st.booleans(),
    checkpoint=st.one_of(st.none(), st.just(Checkpoint()), checkpoints),
    lifetime=st.builds(
        Lifetime,
        max=st.one_of(st.none(), seconds),
        protect_after=st.one_of(st.none(), seconds),
        deadline=st.one_of(st.none(), seconds),
        grace=st.floats(0, 3600),
        expected=seconds,
        max_wait=st.one_of(st.none(), seconds),
    ),
    retry=st.builds(Retry, max=st.integers(0, 1000), lost=st.booleans(), lease=seconds),
    apps=st.dictionaries(names, st.integers(0, 65535), max_size=3),
    priority=st.integers(-1000, 1000),
    labels=mappings,
)
elastic = st.builds(
    Group,
    name=names,
    site=names,
    kind=st.just(GroupKind.ELASTIC),
    provider=names,
    shapes=st.lists(names).map(tuple),
    spot=st.sampled_from([None, True, False]),
    size=st.integers(0, 9).flatmap(lambda low: st.builds(Size, min=st.just(low), max=st.integers(low, 99))),
    pools=st.builds(
        Pools,
        hot=requests,
        hot_count=st.integers(0, 9),
        hot_times=st.lists(st.builds(HotTime, hours=hours, count=st.integers(0, 9)), max_size=2).map(tuple),
        predict=st.booleans(),
        cold=st.integers(0, 9),
    ),
    scale_down=st.builds(ScaleDown, idle_s=seconds, cooldown_s=seconds, consolidate=st.booleans()),
    hours=st.lists(hours, max_size=2).map(tuple),
    driver=st.lists(st.integers(0, 999), max_size=3).map(tuple),
    boot_s=seconds,
    lease_s=seconds,
    max_life_s=seconds,
    labels=mappings,
)


@settings(max_examples=50)
@given(sessions)
def test_a_dumped_session_reads_back_equal(spec: SessionSpec) -> None:
    assert doc.session_spec(doc.dump_session_spec(spec)) == spec


@settings(max_examples=50)
@given(st.one_of(elastic, st.builds(Group, name=names, site=names, labels=mappings)))
def test_a_dumped_group_reads_back_equal(group: Group) -> None:
    assert doc.group(doc.dump_group(group)) == group


@given(
    st.builds(
        Provider,
        name=names,
        kind=names,
        settings=st.dictionaries(names, st.one_of(texts, st.integers())),
        orphans=st.sampled_from(Orphans),
    )
)
def test_a_dumped_provider_reads_back_equal(provider: Provider) -> None:
    assert doc.provider(doc.dump_provider(provider)) == provider


@given(st.builds(Site, name=names, labels=mappings, price=money, egress=money))
def test_a_dumped_site_reads_back_equal(site: Site) -> None:
    assert doc.site(doc.dump_site(site)) == site


def test_all_forms_people_write_are_read() -> None:
    spec = doc.session_spec(
        {
            "kind": "session",
            "command": "echo hi",
            "resources": {"cpu": "500m", "memory": "1.5GiB", "gpu": 1},
            "lifetime": {"max": "1h30m"},
            "cost": {"max_price": 0.81, "spot": False},
            "apps": ["web"],
            "env": {"SEED": 7},
        }
    )
    assert spec.command == ("/bin/sh", "-c", "echo hi")
    assert spec.resources == Request(500, 3 * GIB // 2, 0, GpuRequest(1000))
    assert (spec.lifetime.max, spec.cost.max_price, spec.apps, spec.env) == (5400, 810_000, {"web": 0}, {"SEED": "7"})


def test_apps_are_said_in_a_word_or_in_full() -> None:
    apps = {"a": 80, "b": {"port": 81, "access": "project"}, "c": {"prefix": True}, "d": {"access": "owner"}}
    spec = doc.session_spec({"command": "x", "apps": apps})
    assert spec.apps == {"a": 80, "b": 81, "c": 0, "d": 0}
    assert spec.app_rules == {"b": AppRule(access=AppAccess.PROJECT), "c": AppRule(prefix=True)}
    assert spec.rule("a") == spec.rule("d") == AppRule()
    written = {"a": 80, "b": {"port": 81, "access": "project"}, "c": {"port": 0, "prefix": True}, "d": 0}
    assert doc.dump_session_spec(spec)["apps"] == written
    assert doc.session_spec(doc.dump_session_spec(spec)) == spec


@pytest.mark.parametrize(
    ("document", "message", "hint"),
    [
        ({"resources": {"memroy": 1}}, "unknown key 'memroy' in session.resources", "did you mean 'memory'?"),
        ({"comand": "x"}, "unknown key 'comand' in session", "did you mean 'command'?"),
        ({"resources": []}, "session.resources must be a mapping, not a list", ""),
        ({"resources": {"cpu": "many"}}, "session.resources.cpu must be a number", ""),
        ({"resources": {"cpu": True}}, "session.resources.cpu must be a number", ""),
        ({"resources": {"cpu": float("nan")}}, "session.resources.cpu must be a number", ""),
        ({"resources": {"cpu": 0}}, "session.resources.cpu must be above 0", ""),
        ({"resources": {"memory": "-1GiB"}}, "session.resources.memory must be an amount", ""),
        ({"resources": {"memory": -1}}, "session.resources.memory is out of range", ""),
        ({"resources": {"gpu": {"count": 1, "nmae": "L4"}}}, "unknown key 'nmae'", "did you mean 'name'?"),
        ({"nodes": 0}, "session.nodes is 0", "between 1 and 1024"),
        ({"nodes": 1.5}, "session.nodes must be a whole number", ""),
        ({"type": "bach"}, "session.type cannot be 'bach'", "did you mean 'batch'?"),
        ({"lifetime": {"max": "soon"}}, "session.lifetime.max must be a duration", ""),
        ({"lifetime": {"protect": "yes"}}, "session.lifetime.protect must be true or false", ""),
        ({"cost": {"max_price": "cheap"}}, "session.cost.max_price must be an amount of money", ""),
        ({"env": {"A=B": "x"}}, "session.env has the name 'A=B'", ""),
        ({"env": {"A": None}}, "session.env.A must be a text", ""),
        ({"apps": {"web": 70000}}, "session.apps.web is 70000", "between 0 and 65535"),
        ({"apps": {"x" * 21: 0}}, "is longer than 20 characters", ""),
        ({"apps": {"web": {"acces": "public"}}}, "unknown key 'acces' in session.apps.web", "did you mean 'access'?"),
        ({"apps": {"web": {"access": "all"}}}, "session.apps.web.access cannot be 'all'", "owner, project, public"),
        ({"apps": {"web": {"port": -1}}}, "session.apps.web.port is -1", "between 0 and 65535"),
        ({"apps": {"web": "8080"}}, "session.apps.web must be a whole number", ""),
        ({"name": "a--b"}, "is not a valid session name", ""),
        ({"stdin": "x" * (doc.MAX_STDIN + 1)}, "session.stdin is longer than", ""),
    ],
)
def test_a_mistake_is_named_with_its_path(document: dict[str, Any], message: str, hint: str) -> None:
    command = {} if "comand" in document else {"command": ["true"]}
    if "comand" in document:
        document = {**document, "command": ["true"]}
    with pytest.raises(Invalid) as caught:
        doc.session_spec({**command, **document})
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize("command", [None, "", [], [""], ["a\0b"], {"a": 1}])
def test_a_session_needs_a_command(command: object) -> None:
    with pytest.raises(Invalid, match=r"session\.command"):
        doc.session_spec({"command": command})


def test_a_fixed_group_refuses_what_needs_a_provider() -> None:
    with pytest.raises(Invalid, match="has no provider"):
        doc.group({"name": "hall", "size": {"max": 3}})
    assert doc.group({"name": "hall"}) == Group(name="hall", site="hall")


def test_an_elastic_group_is_at_its_providers_site_by_default() -> None:
    group = doc.group({"name": "burst", "provider": "sim", "size": {"min": 7}})
    assert (group.kind, group.site, group.size) == (GroupKind.ELASTIC, "sim", Size(min=7, max=7))
    with pytest.raises(Invalid, match=r"group\.size\.max is 1, below min 2"):
        doc.group({"name": "burst", "provider": "sim", "size": {"min": 2, "max": 1}})


def test_a_provider_document_takes_the_views_kind_as_its_type() -> None:
    assert doc.provider({"kind": "provider", "type": "sim"}) == Provider(name="sim", kind="sim")
    assert doc.provider({"kind": "sim", "name": "x", "settings": {"a": [1]}}).settings == {"a": [1]}
    with pytest.raises(Invalid, match=r"provider\.type is missing"):
        doc.provider({"name": "x"})


@pytest.mark.parametrize("key", ["atoll-owner", "Atoll-x"])
def test_labels_of_a_group_cannot_pass_for_our_own_tags(key: str) -> None:
    with pytest.raises(Invalid, match=key) as refused:
        doc.group({"name": "burst", "provider": "sim", "labels": {"team": "vision", key: "x"}})
    assert "another name" in refused.value.hint


def test_an_unknown_policy_for_orphans_is_met_with_did_you_mean() -> None:
    with pytest.raises(Invalid, match="orphans") as refused:
        doc.provider({"type": "sim", "orphans": "terminat"})
    assert "'terminate'" in refused.value.hint


def test_the_kind_of_a_document_is_checked() -> None:
    assert doc.kind_of({"kind": "group"}) == "group"
    for wrong, message in (({"kind": "gruop"}, "unknown kind"), ({}, "no `kind`"), ([], "must be a mapping")):
        with pytest.raises(Invalid, match=message) as caught:
            doc.kind_of(wrong)
        assert caught.value.hint


def test_a_misspelt_required_key_is_met_with_did_you_mean() -> None:
    with pytest.raises(Invalid) as caught:
        doc.session_spec({"comand": ["true"]})
    assert "'comand'" in str(caught.value)
    assert caught.value.hint == "did you mean 'command'?"
