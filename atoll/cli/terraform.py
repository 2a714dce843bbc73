"""Reading a provider's document from what Terraform writes: the output `atoll_provider` of our modules."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atoll.errors import Invalid
from atoll.suggest import hint

OUTPUT = "atoll_provider"
"""The output that every module in `terraform/` has: one object `{name, type, settings}`."""
_COMMAND = "terraform output -json atoll_provider >provider.json"
_KEYS = {"name", "type", "settings"}


def provider_document(path: Path) -> dict[str, Any]:
    """Return the provider's document in a file (`-`: standard input).

    Read are `terraform output -json`, of all outputs or of the one; `terraform show -json`; and a state file.
    Raises `Invalid`, never with a value of the file in it: secrets are among them.
    """
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text()
    except OSError as error:
        raise Invalid(
            f"cannot read {path}: {(error.strerror or str(error)).lower()}", hint=f"make it with: {_COMMAND}"
        ) from error
    except UnicodeDecodeError as error:
        raise Invalid(f"{path} is not text", hint=f"make it with: {_COMMAND}") from error
    return read(text, str(path))


def read(text: str, source: str) -> dict[str, Any]:
    """Return the provider's document in `text`; `source` is named in errors."""
    try:
        found = json.loads(text)
    except ValueError:
        # Without the cause: it quotes the text.
        advice = "it is empty: has `terraform apply` run?" if not text.strip() else f"make it with: {_COMMAND}"
        raise Invalid(f"{source} is not JSON", hint=advice) from None
    if not isinstance(found, dict):
        raise Invalid(f"{source} is JSON, but no object", hint=f"make it with: {_COMMAND}")
    document = found if _KEYS & found.keys() == _KEYS else _output(_outputs(found, source), source)
    if not isinstance(document.get("settings"), Mapping) or not document.get("type"):
        raise Invalid(
            f"the output {OUTPUT} in {source} is no provider",
            hint="it must be an object with name, type and settings, as the modules in terraform/ have it",
        )
    return {"name": document.get("name"), "type": document["type"], "settings": _said(document["settings"])}


def _outputs(found: dict[str, Any], source: str) -> Mapping[str, Any]:
    if "planned_values" in found:
        raise Invalid(f"{source} is a plan: nothing was made yet", hint=f"terraform apply; {_COMMAND}")
    if "format_version" in found:  # terraform show -json
        values = found.get("values")
        outputs = values.get("outputs") if isinstance(values, Mapping) else None
    elif "terraform_version" in found:  # a state file
        outputs = found.get("outputs")
    else:
        outputs = found
    return outputs if isinstance(outputs, Mapping) else {}


def _output(outputs: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    if OUTPUT not in outputs:
        told = f"outputs there: {', '.join(sorted(outputs))}" if outputs else "it has no outputs: has apply run?"
        raise Invalid(f"there is no output {OUTPUT} in {source}", hint=hint(OUTPUT, sorted(outputs), told))
    output = outputs[OUTPUT]
    value = output.get("value") if isinstance(output, Mapping) else None
    if not isinstance(value, Mapping):
        raise Invalid(
            f"the output {OUTPUT} in {source} has no value that can be read",
            hint=f"a redacted or sealed file tells none: {_COMMAND}",
        )
    return value


def _said(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings without the nulls that Terraform puts where nothing was said."""
    return {
        key: _said(value) if isinstance(value, Mapping) else value
        for key, value in settings.items()
        if value is not None
    }
