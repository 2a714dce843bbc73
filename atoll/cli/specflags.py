"""The flags of `atoll run` and `atoll offers` that describe a session, and the document they make."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from atoll.cli.files import documents
from atoll.cli.parser import Parser
from atoll.errors import Invalid


def add(parser: Parser) -> None:
    """Add the flags; they mirror the document's field names and win over `-f FILE`."""
    parser.add_argument("-f", "--file", type=Path, help="a session document in YAML; flags win over it")
    size = parser.add_argument_group("size of each member")
    size.add_argument("--cpu", metavar="CORES", help="cores: 2, 0.5 or 500m (default 1)")
    size.add_argument("--memory", metavar="BYTES", help="memory: 512MiB, 24GiB (default 256MiB)")
    size.add_argument("--disk", metavar="BYTES", help="disk: 20GiB")
    size.add_argument("--gpu", metavar="COUNT", help="GPUs: 1, 0.5")
    size.add_argument("--gpu-model", metavar="MODEL", action="append", help="GPU model; may be repeated: any of them")
    size.add_argument("--gpu-memory", metavar="BYTES", help="least memory of each GPU: 24GiB")
    size.add_argument("--gpu-driver", metavar="VERSION", help="oldest GPU driver that will do: 550")
    size.add_argument("--nodes", type=int, metavar="N", help="members of a gang: all start, or none")
    place = parser.add_argument_group("where and for how much")
    place.add_argument("--site", action="append", help="only at this site; may be repeated")
    place.add_argument("--group", action="append", help="only in this group; may be repeated")
    place.add_argument(
        "--place-label", action="append", metavar="K=V", help="only where this label is; may be repeated"
    )
    place.add_argument("--near", metavar="SITE", help="the site where its data is")
    place.add_argument("--data", metavar="BYTES", help="how much of it is brought to where the session runs: 200GiB")
    together = place.add_mutually_exclusive_group()
    together.add_argument("--together", action="store_true", help="all members of a gang at one site, or wait")
    together.add_argument("--spread", action="store_true", help="members of a gang over as many sites as there are")
    place.add_argument("--max-price", type=float, metavar="PRICE", help="most an hour, in units: 0.81")
    place.add_argument("--max-total", type=float, metavar="AMOUNT", help="most in all, by --expected, in units: 25")
    place.add_argument("--no-spot", action="store_true", help="no machines that a cloud may take back")
    life = parser.add_argument_group("lifetime")
    life.add_argument("--protect", action="store_true", help="never end its agent to save money")
    life.add_argument("--protect-after", metavar="TIME", help="the same, once it has run this long: 2h")
    life.add_argument("--deadline", metavar="TIME", help="should have ended this long from now: 8h")
    life.add_argument(
        "--checkpoint",
        action="store_true",
        help="it saves its state at USR1, exits with code 85, and may then go on elsewhere",
    )
    life.add_argument("--checkpoint-signal", metavar="SIGNAL", help="the same, at another signal: TERM")
    life.add_argument("--preemptible", action="store_true", help="may go back to the queue for a higher priority")
    life.add_argument("--max-lifetime", metavar="TIME", help="end it after running this long: 2h")
    life.add_argument("--grace", metavar="TIME", help="between TERM and KILL (default 10s)")
    life.add_argument("--expected", metavar="TIME", help="how long you think it runs: weighs price against start (10m)")
    life.add_argument("--max-wait", metavar="TIME", help="give up when it has waited this long")
    life.add_argument("--retry-lost", action="store_true", help="start anew elsewhere when its agent falls silent")
    life.add_argument("--retries", type=int, metavar="N", help="how often to queue again when a machine goes (3)")
    parser.add_argument("--blind", action="store_true", help="reached by `atoll forward` alone, encrypted end to end")
    parser.add_argument("--type", metavar="TYPE", help="batch, interactive or service (default batch)")
    parser.add_argument("--priority", type=int, metavar="N", help="-1000 to 1000 (default 0); higher goes first")


def document(args: argparse.Namespace, command: Sequence[str] | None = None) -> dict[str, Any]:
    """Return the session document of `-f FILE` with the flags on top."""
    doc = _from_file(args.file) if args.file else {}
    if command:
        doc["command"] = list(command)
    for key in ("nodes", "type", "priority"):
        if (value := getattr(args, key)) is not None:
            doc[key] = value
    for flag in ("preemptible", "blind"):
        if getattr(args, flag):
            doc[flag] = True
    if args.checkpoint or args.checkpoint_signal:
        _into(doc, "checkpoint", signal=args.checkpoint_signal)
        doc.setdefault("checkpoint", True)
    _into(doc, "resources", cpu=args.cpu, memory=args.memory, disk=args.disk, gpu=_gpu(doc, args))
    _into(
        doc,
        "placement",
        sites=args.site,
        groups=args.group,
        labels=pairs(args.place_label, "--place-label") or None,
        near=args.near,
        data=args.data,
        together=args.together or None,
        spread=args.spread or None,
    )
    _into(doc, "cost", max_price=args.max_price, max_total=args.max_total, spot=False if args.no_spot else None)
    _into(
        doc,
        "lifetime",
        protect=args.protect_after or args.protect or None,
        deadline=args.deadline,
        max=args.max_lifetime,
        grace=args.grace,
        expected=args.expected,
        max_wait=args.max_wait,
    )
    _into(doc, "retry", lost=args.retry_lost or None, max=args.retries)
    return doc


def pairs(words: Sequence[str] | None, flag: str) -> dict[str, str]:
    """Return `K=V` words as a mapping; raise `Invalid` for others."""
    found = {}
    for word in words or ():
        key, separator, value = word.partition("=")
        if not separator or not key:
            raise Invalid(f"{flag} {word!r} is not KEY=VALUE", hint=f"write it like {flag} SEED=7")
        found[key] = value
    return found


def _gpu(doc: dict[str, Any], args: argparse.Namespace) -> Any:
    given = {"count": args.gpu, "name": args.gpu_model, "memory": args.gpu_memory, "driver": args.gpu_driver}
    given = {key: value for key, value in given.items() if value is not None}
    if not given:
        return None
    before = (doc.get("resources") or {}).get("gpu")
    return {**(before if isinstance(before, dict) else {"count": before} if before else {}), **given}


def _into(doc: dict[str, Any], section: str, **given: Any) -> None:
    values = {key: value for key, value in given.items() if value is not None}
    if values:
        below = doc.get(section) or {}
        if below is True:
            below = {}
        if not isinstance(below, dict):
            raise Invalid(f"session.{section} must be a mapping", hint=f"write keys below {section}:")
        doc[section] = {**below, **values}


def _from_file(path: Path) -> dict[str, Any]:
    found = documents(path)
    if len(found) != 1:
        raise Invalid(f"{path} holds {len(found)} documents", hint="`atoll run -f` takes one; see `atoll apply -f`")
    if found[0].get("kind", "session") != "session":
        raise Invalid(f"{path} describes a {found[0]['kind']}, not a session", hint="use `atoll apply -f`")
    return found[0]
