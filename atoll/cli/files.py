"""Reading YAML documents from a file or from standard input."""

import sys
from pathlib import Path
from typing import Any

from atoll.errors import Invalid


def documents(path: Path) -> list[dict[str, Any]]:
    """Return the documents of a YAML file (`-`: standard input); raise `Invalid` when it is none."""
    import yaml  # here: only those who read or print YAML pay for it

    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text()
    except OSError as error:
        raise Invalid(f"cannot read {path}: {(error.strerror or str(error)).lower()}", hint="check -f") from error
    except UnicodeDecodeError as error:
        raise Invalid(f"{path} is not text", hint="a YAML file in UTF-8 is wanted") from error
    try:
        found = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or error
        raise Invalid(f"{path}{where} is not YAML: {what}", hint="see `atoll apply --help`") from error
    for document in found:
        if not isinstance(document, dict):
            raise Invalid(f"{path} must hold mappings of keys to values", hint="begin with `kind: session`")
    return found
