"""The document of a session."""

from collections.abc import Mapping
from typing import Any

from atoll.document.common import bytes_text, changed, dump_request, name_of, request
from atoll.errors import Invalid
from atoll.fields import Fields, compact, money_text
from atoll.ids import check_name
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
from atoll.slots import KIB, Request

SIGNALS = ("USR1", "USR2", "TERM", "INT", "HUP", "CONT", "ALRM", "WINCH", "URG")
"""Signals that may ask a session for a checkpoint: those that a program can catch."""

MAX_NODES = 1024
"""Members of one gang at most."""
MAX_STDIN = 512 * KIB
"""Characters of standard input that a document may carry."""
MAX_APP_NAME = 20
"""With `--` and a session's name of 40 characters, an app's host name stays within DNS's 63."""


def session_spec(document: Mapping[str, Any]) -> SessionSpec:
    """Return the session a document asks for; raise `Invalid` naming the key at fault. `command` is required."""
    doc = Fields(document, "session", "kind")
    apps, rules = _apps(doc)
    spec = SessionSpec(
        command=_command(doc),
        name=name_of(doc, "name", "session", required=False),
        type=SessionType(doc.choice("type", [kind.value for kind in SessionType], SessionType.BATCH.value)),
        runtime=doc.choice("runtime", ["process"], "process"),
        workdir=doc.text("workdir"),
        env=doc.texts_by_name("env"),
        stdin=_stdin(doc),
        resources=request(doc.section("resources"), Request()),
        nodes=doc.integer("nodes", 1, low=1, high=MAX_NODES),
        placement=_placement(doc.section("placement")),
        cost=_cost(doc.section("cost")),
        lifetime=_lifetime(doc.section("lifetime")),
        retry=_retry(doc.section("retry")),
        apps=apps,
        app_rules=rules,
        priority=doc.integer("priority", 0, low=-1000, high=1000),
        preemptible=bool(doc.flag("preemptible", False)),
        blind=bool(doc.flag("blind", False)),
        checkpoint=_checkpoint(doc),
        labels=doc.texts_by_name("labels"),
    )
    doc.done()
    for key in spec.env:
        if not key or "=" in key or "\0" in key:
            raise Invalid(f"session.env has the name {key!r}, which no process can have", hint="write NAME: value")
    return spec


def dump_session_spec(spec: SessionSpec) -> dict[str, Any]:
    """Return the document of a session: command and resources always, the rest where it is not the default."""
    plain = SessionSpec(command=())
    return {
        "command": list(spec.command),
        "resources": dump_request(spec.resources),
        **compact(
            {
                "name": spec.name,
                "type": spec.type.value if spec.type != plain.type else "",
                "runtime": spec.runtime if spec.runtime != plain.runtime else "",
                "workdir": spec.workdir,
                "env": dict(spec.env),
                "stdin": spec.stdin,
                "nodes": spec.nodes if spec.nodes != 1 else None,
                "placement": _dump_placement(spec.placement),
                "cost": compact(
                    {
                        "max_price": _money(spec.cost.max_price),
                        "max_total": _money(spec.cost.max_total),
                        "spot": None if spec.cost.spot else False,
                    }
                ),
                "lifetime": _dump_lifetime(spec.lifetime, plain.lifetime),
                "retry": compact(
                    {
                        "max": spec.retry.max if spec.retry.max != plain.retry.max else None,
                        "lost": spec.retry.lost or None,
                        "lease": changed(spec.retry.lease, plain.retry.lease),
                    }
                ),
                "apps": {app: _dump_app(port, spec.rule(app)) for app, port in spec.apps.items()},
                "priority": spec.priority or None,
                "preemptible": spec.preemptible or None,
                "blind": spec.blind or None,
                "checkpoint": _dump_checkpoint(spec.checkpoint),
                "labels": dict(spec.labels),
            }
        ),
    }


def _command(doc: Fields) -> tuple[str, ...]:
    value = doc.raw("command")
    if isinstance(value, str) and value.strip():
        command: tuple[str, ...] = ("/bin/sh", "-c", value)
    else:
        command = doc.texts("command")
    if not command or not command[0]:
        raise doc.missing("command", 'write it like ["python3", "train.py"] or "python3 train.py"')
    if any("\0" in word for word in command):
        raise Invalid("session.command holds a NUL character", hint="no program can be given one")
    return command


def _stdin(doc: Fields) -> str:
    text = doc.text("stdin")
    if len(text) > MAX_STDIN:
        raise Invalid(f"session.stdin is longer than {MAX_STDIN // KIB} KiB", hint="let the program read a file")
    return text


def _placement(doc: Fields) -> Placement:
    placement = Placement(
        sites=doc.texts("sites"),
        groups=doc.texts("groups"),
        labels=doc.texts_by_name("labels"),
        near=name_of(doc, "near", "site", required=False),
        data=doc.bytes("data", 0),
        together=bool(doc.flag("together", False)),
        spread=bool(doc.flag("spread", False)),
    )
    doc.done()
    if placement.data and not placement.near:
        raise doc.missing("near", "name the site where the data is")
    if placement.together and placement.spread:
        raise Invalid(f"{doc.path} asks for members together and spread", hint="choose one of the two")
    return placement


def _dump_placement(placement: Placement) -> dict[str, Any]:
    return compact(
        {
            "sites": list(placement.sites),
            "groups": list(placement.groups),
            "labels": dict(placement.labels),
            "near": placement.near,
            "data": bytes_text(placement.data) if placement.data else "",
            "together": placement.together or None,
            "spread": placement.spread or None,
        }
    )


def _checkpoint(doc: Fields) -> Checkpoint | None:
    value = doc.raw("checkpoint")
    if value is None or isinstance(value, bool):
        return Checkpoint() if value else None
    fields, plain = doc.section("checkpoint"), Checkpoint()
    checkpoint = Checkpoint(
        signal=_signal(fields, plain.signal),
        exit_code=fields.integer("exit_code", plain.exit_code, low=1, high=127),
        grace=fields.seconds("grace", plain.grace, low=0.1, high=86400),
        lost=fields.seconds("lost", plain.lost),
        every=fields.seconds("every", plain.every),
    )
    fields.done()
    return checkpoint


def _signal(doc: Fields, default: str) -> str:
    name = doc.text("signal").upper().removeprefix("SIG") or default
    if name not in SIGNALS:
        raise Invalid(f"{doc.path}.signal cannot be {name!r}", hint=f"one of: {', '.join(SIGNALS)}")
    return name


def _dump_checkpoint(checkpoint: Checkpoint | None) -> Any:
    if checkpoint is None:
        return None
    plain = Checkpoint()
    changes = compact(
        {
            "signal": checkpoint.signal if checkpoint.signal != plain.signal else "",
            "exit_code": checkpoint.exit_code if checkpoint.exit_code != plain.exit_code else None,
            "grace": changed(checkpoint.grace, plain.grace),
            "lost": changed(checkpoint.lost, plain.lost),
            "every": changed(checkpoint.every, plain.every),
        }
    )
    return changes or True


def _money(amount: int | None) -> int | float | None:
    return None if amount is None else money_text(amount)


def _cost(doc: Fields) -> CostLimits:
    limits = CostLimits(
        max_price=doc.money("max_price", None),
        max_total=doc.money("max_total", None),
        spot=bool(doc.flag("spot", True)),
    )
    doc.done()
    return limits


def _lifetime(doc: Fields) -> Lifetime:
    plain = Lifetime()
    lifetime = Lifetime(
        max=doc.optional_seconds("max", low=0.001),
        **_protection(doc),
        grace=doc.seconds("grace", plain.grace, high=3600),
        expected=doc.seconds("expected", plain.expected, low=0.001),
        max_wait=doc.optional_seconds("max_wait", low=0.001),
        deadline=doc.optional_seconds("deadline", low=0.001),
    )
    doc.done()
    return lifetime


def _protection(doc: Fields) -> dict[str, Any]:
    """Read `protect: true`, or `protect: 2h`: once it has run that long."""
    value = doc.raw("protect")
    if value is None or isinstance(value, bool):
        return {"protect": bool(value)}
    try:
        return {"protect_after": doc.seconds("protect", 0.0, low=0.001)}
    except Invalid as error:
        raise Invalid(
            f"{doc.path}.protect must be true or false, or a duration, not {value!r}", hint=error.hint
        ) from None


def _dump_lifetime(lifetime: Lifetime, plain: Lifetime) -> dict[str, Any]:
    return compact(
        {
            "max": changed(lifetime.max, None),
            "protect": lifetime.protect or changed(lifetime.protect_after, None),
            "grace": changed(lifetime.grace, plain.grace),
            "expected": changed(lifetime.expected, plain.expected),
            "max_wait": changed(lifetime.max_wait, None),
            "deadline": changed(lifetime.deadline, None),
        }
    )


def _retry(doc: Fields) -> Retry:
    plain = Retry()
    retry = Retry(
        max=doc.integer("max", plain.max, low=0, high=1000),
        lost=bool(doc.flag("lost", plain.lost)),
        lease=doc.seconds("lease", plain.lease, low=1),
    )
    doc.done()
    return retry


def _apps(doc: Fields) -> tuple[dict[str, int], dict[str, AppRule]]:
    """Read `apps`: a list of names, or a mapping of names to a port or to `{port, access, prefix}`."""
    value, rules = doc.raw("apps"), {}
    if isinstance(value, Mapping):
        below, ports = doc.section("apps"), {}
        for name in value:
            ports[str(name)], rules[str(name)] = _app(below, name)
    else:
        ports = doc.ports("apps")
    for name in ports:
        check_name(name, "app")
        if len(name) > MAX_APP_NAME:
            raise Invalid(
                f"app name {name!r} is longer than {MAX_APP_NAME} characters",
                hint="it becomes part of a host name, <app>--<session>",
            )
    return ports, {name: rule for name, rule in rules.items() if rule != AppRule()}


def _app(apps: Fields, name: str) -> tuple[int, AppRule]:
    if not isinstance(apps.raw(name), Mapping):
        return apps.integer(name, 0, low=0, high=65535), AppRule()
    doc = apps.section(name)
    port = doc.integer("port", 0, low=0, high=65535)
    access = doc.choice("access", [each.value for each in AppAccess], AppAccess.OWNER.value)
    rule = AppRule(access=AppAccess(access), prefix=bool(doc.flag("prefix", False)))
    doc.done()
    return port, rule


def _dump_app(port: int, rule: AppRule) -> Any:
    if rule == AppRule():
        return port
    access = rule.access.value if rule.access is not AppAccess.OWNER else ""
    return {"port": port, **compact({"access": access, "prefix": rule.prefix or None})}
