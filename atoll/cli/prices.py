"""`atoll prices`: what the clouds ask, where that was read, and how old it is."""

import argparse
from pathlib import Path

from atoll import duration
from atoll.cli import columns
from atoll.cli.connect import client
from atoll.cli.output import note, show, table
from atoll.cli.parser import Parser, Run, run_verb
from atoll.client.views import PriceListView
from atoll.errors import AtollError, Invalid
from atoll.host.files import refused

NAMESPACE = "atoll-prices"
"""What signatures of price files are for."""


def prices(parser: Parser) -> Run:
    """Set up `atoll prices`."""
    add = parser.verbs()
    update = add("update", _update, "read live price lists now", "atoll prices update aws")
    update.add_argument("provider", nargs="?", help="default: every provider whose cloud has a live list")
    update.add_argument("--accept-jumps", action="store_true", help="believe prices that fell to less than a fifth")
    update.output()
    take = add("import", _import, "take prices from a file", "atoll prices import prices.json")
    take.add_argument("file", type=Path, help="a price file with its signature FILE.sig beside it, or a CSV")
    take.add_argument("--provider", metavar="NAME", default="", help="only for this provider")
    take.add_argument("--unsigned", action="store_true", help="take it without a signature")
    take.add_argument("--allow-older", action="store_true", help="take it although newer prices are in place")
    take.add_argument("--accept-jumps", action="store_true", help="believe prices that fell to less than a fifth")
    take.output()
    export = add("export", _export, "write the lists in place to a file", "atoll prices export prices.json --key KEY")
    export.add_argument("file", help="where to write it; `-` is standard output")
    export.add_argument("--provider", metavar="NAME", default="", help="only this provider's list")
    export.add_argument("--key", type=Path, help="sign it with this OpenSSH key: writes FILE.sig")
    shown = add(
        "show", _show, "show prices, their age, and what was not believed", "atoll prices show aws --shape 'g*'"
    )
    shown.add_argument("provider", nargs="?", help="its prices (default: an overview of all)")
    shown.add_argument("--age", action="store_true", help="only source, date and age")
    shown.add_argument("--shape", metavar="PATTERN", default="*", help="only machine types that match, e.g. 'g5.*'")
    shown.add_argument("--rejected", action="store_true", help="the rows that the checks dropped or doubt, with why")
    shown.output()
    return run_verb


def _update(args: argparse.Namespace) -> int:
    connection = client(args)
    names = [args.provider] if args.provider else [view.provider for view in connection.price_lists() if view.live]
    if not names:
        raise Invalid("no provider has a live list of prices", hint="import a file: atoll prices import FILE")
    done: list[PriceListView] = []
    failed: list[AtollError] = []
    for name in names:
        note(f"reading the prices of {name} …")
        try:
            done.append(connection.update_prices(name, accept_jumps=args.accept_jumps))
        except AtollError as error:
            note(f"{name}: {error.message}")
            failed.append(error)
    if done:
        _tell(done, args.output)
    if failed:
        raise failed[0]
    return 0


def _import(args: argparse.Namespace) -> int:
    content = _text(args.file)
    beside = args.file.with_name(args.file.name + ".sig")
    signature = _text(beside) if beside.exists() and not args.unsigned else ""
    body = {
        "name": args.file.name,
        "content": content,
        "signature": signature,
        "dated": args.file.stat().st_mtime,
        "provider": args.provider,
        "unsigned": args.unsigned,
        "allow_older": args.allow_older,
        "accept_jumps": args.accept_jumps,
    }
    _tell(client(args).import_prices(body), args.output)
    return 0


def _export(args: argparse.Namespace) -> int:
    if args.file == "-" and args.key:
        raise Invalid(
            "a signature needs a file beside which it can be written", hint="atoll prices export FILE --key KEY"
        )
    content = client(args).export_prices(args.provider)
    if args.file == "-":
        print(content, end="")
        return 0
    place = Path(args.file)
    _write(place, content)
    print(f"{place} written")
    if args.key:
        from atoll.host.signature import sign

        beside = place.with_name(place.name + ".sig")
        _write(beside, sign(content.encode(), args.key, NAMESPACE))
        print(f"{beside} written")
    return 0


def _show(args: argparse.Namespace) -> int:
    connection = client(args)
    if args.provider is None and not args.rejected and args.shape == "*":
        found = connection.price_lists()
        show(found, args.output, columns.PRICE_LISTS, "no providers; `atoll provider add sim` adds one")
        _warn(found)
        return 0
    names = [args.provider] if args.provider else [view.provider for view in connection.price_lists()]
    found = [connection.prices(name, shape=args.shape) for name in names]
    if args.output != "table":
        show(found[0] if args.provider else found, args.output)
    elif args.age:
        print(table(found, columns.PRICE_LISTS), end="")
    elif args.rejected:
        show([each for view in found for each in view.remarks], "table", columns.PRICE_REMARKS, "all was believed")
    else:
        for view in found:
            if len(found) > 1:
                print(f"{view.provider}:")
            show(view.rows, "table", columns.PRICES, _nothing(view, args.shape))
    _warn(found)
    return 0


def _nothing(view: PriceListView, shape: str) -> str:
    if view.at is None:
        return f"{view.provider} has no price list; `atoll prices update` or `atoll prices import` gets one"
    return f"no prices of shapes {shape!r} in the list of {view.provider}"


def _tell(views: list[PriceListView], form: str) -> None:
    if form != "table":
        show(views, form)
        return
    for view in views:
        doubts = len(view.remarks) - view.dropped
        told = [
            f"{view.count} prices",
            f"{view.dropped} dropped" if view.dropped else "",
            f"{doubts} doubted" if doubts else "",
        ]
        print(f"{view.provider}: {', '.join(text for text in told if text)}; {view.source}, {_age(view)} old")
        if view.remarks:
            note(f"`atoll prices show {view.provider} --rejected` says what was dropped or doubted, and why")
    _warn(views)


def _warn(views: list[PriceListView]) -> None:
    for view in views:
        if view.stale:
            note(stale_text(view))


def stale_text(view: PriceListView) -> str:
    """Return one line about a stale list."""
    then = "nothing is launched at them" if view.blocks else "they are used all the same"
    return f"the prices of {view.provider} are stale: {_age(view)} old; {then}"


def _age(view: PriceListView) -> str:
    return duration.rough(view.age_s or 0.0)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode()  # every byte as it was signed
    except OSError as error:
        raise Invalid(f"cannot read {path}: {(error.strerror or str(error)).lower()}", hint="check the name") from error
    except UnicodeDecodeError as error:
        raise Invalid(f"{path} is not text", hint="a price file is JSON or CSV") from error


def _write(path: Path, content: str) -> None:
    try:
        path.write_text(content)
    except OSError as error:
        raise refused(path, error) from error
