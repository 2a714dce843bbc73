"""Tags as Google takes them: lower-case labels; what those cannot hold stays whole in metadata. Pure."""

import json
import re
from collections.abc import Mapping
from typing import Any

from providers.port import INTENT_TAG, OWNER_TAG, PRINT_TAG, Intent

WHOLE_TAGS = "atoll-tags"
"""Metadata key: the tags that labels cannot hold as they are, as JSON."""
_LENGTH = 63
_FOREIGN = re.compile(r"[^a-z0-9_-]")


def label_key(text: str) -> str:
    """Return the label key nearest to a text: `Cost Centre` is `cost_centre`."""
    key = _FOREIGN.sub("_", text.lower())
    return (key if key[:1].isalpha() else f"x{key}")[:_LENGTH]


def label_value(text: str) -> str:
    """Return the label value nearest to a text."""
    return _FOREIGN.sub("_", text.lower())[:_LENGTH]


def labels(intent: Intent, tags: Mapping[str, str]) -> dict[str, str]:
    """Return the labels of an intent's machine; ours win over those of the user."""
    said = {**tags, **intent.tags, **_own(intent)}
    return {label_key(key): label_value(value) for key, value in said.items()}


def metadata(intent: Intent, tags: Mapping[str, str]) -> dict[str, str]:
    """Return what labels cannot be trusted with: the exact owner, intent and fingerprint, and altered tags."""
    altered = {k: v for k, v in {**tags, **intent.tags}.items() if (label_key(k), label_value(v)) != (k, v)}
    return _own(intent) | ({WHOLE_TAGS: json.dumps(altered, sort_keys=True)} if altered else {})


def read(instance: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata of an instance as a mapping."""
    return {item["key"]: item.get("value", "") for item in instance.get("metadata", {}).get("items", [])}


def owned(owner: str) -> str:
    """Return the filter that lists the machines of an owner, and maybe of one whose id looks alike as a label."""
    return f'labels.{OWNER_TAG}="{label_value(owner)}"'


def _own(intent: Intent) -> dict[str, str]:
    return {OWNER_TAG: intent.owner, INTENT_TAG: intent.id, PRINT_TAG: intent.fingerprint}
