"""Google's discovery documents: which methods there are, and whether a request or an answer is of their form."""

import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]


@dataclass(frozen=True)
class Method:
    """One method of a service: `segments` of its path, parameters in braces."""

    service: "Service"
    id: str
    verb: str
    segments: tuple[str, ...]
    parameters: Mapping[str, Mapping[str, Any]]
    request: str
    response: str

    def match(self, path: tuple[str, ...]) -> dict[str, str] | None:
        """Return the path's parameters if it is this method's."""
        found = {}
        for wanted, given in zip(self.segments, path, strict=True):
            if not wanted.startswith("{"):
                if wanted != given:
                    return None
                continue
            name, _, action = wanted[1:].partition("}")
            if not given.endswith(action) or (":" in given and not action):
                return None
            found[name] = given.removesuffix(action)
        return found

    def wrong_parameter(self, inside: Mapping[str, str], query: Mapping[str, str]) -> str:
        """Return what is wrong with the parameters in the path and the query; empty when nothing is."""
        for name, value in (*inside.items(), *query.items()):
            known = self.parameters.get(name) or self.service.parameters.get(name)
            if known is None and name in inside:
                continue  # a piece of a longer parameter: flat paths have names of their own
            if known is None:
                return f'Invalid JSON payload received. Unknown name "{name}": Cannot bind query parameter.'
            pattern = known.get("pattern", "")
            if pattern and not re.fullmatch(pattern.strip("^$"), value):
                return f"Invalid value for field '{name}': '{value}'. Must be a match of regex '{pattern}'"
            if known.get("type") == "integer" and not re.fullmatch(r"-?[0-9]+", value):
                return f"Invalid value for field '{name}': '{value}'."
        return ""


class Service:
    """One service by its discovery document; validators are built when they are first needed."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._validators: dict[str, Any] = {}
        self.parameters: Mapping[str, Mapping[str, Any]] = document["parameters"]

    @cached_property
    def _methods(self) -> dict[tuple[str, int], list[Method]]:
        index: dict[tuple[str, int], list[Method]] = {}
        for method in self._walk(self._document):
            index.setdefault((method.verb, len(method.segments)), []).append(method)
        return index

    def find(self, verb: str, path: str) -> tuple[Method, dict[str, str]] | None:
        """Return the method of a request and the parameters in its path; the most literal one if several fit."""
        segments = tuple(path.strip("/").split("/"))
        fits = [
            (method, found)
            for method in self._methods.get((verb, len(segments)), [])
            if (found := method.match(segments)) is not None
        ]
        return min(fits, key=lambda fit: len(fit[1]), default=None)

    def wrong_body(self, schema: str, body: object) -> str:
        """Return what is wrong with a body of a schema; empty when nothing is."""
        if schema not in self._validators:
            self._validators[schema] = jsonschema.Draft202012Validator(self._schema(schema))
        error = next(self._validators[schema].iter_errors(body), None)
        return f"{'/'.join(map(str, error.absolute_path))}: {error.message}" if error else ""

    def _walk(self, resource: Mapping[str, Any]) -> Iterator[Method]:
        for method in resource.get("methods", {}).values():
            yield Method(
                service=self,
                id=method["id"],
                verb=method["httpMethod"],
                segments=tuple((self._document["servicePath"] + method["flatPath"]).split("/")),
                parameters=method.get("parameters", {}),
                request=method.get("request", {}).get("$ref", ""),
                response=method.get("response", {}).get("$ref", ""),
            )
        for inner in resource.get("resources", {}).values():
            yield from self._walk(inner)

    def _schema(self, name: str) -> dict[str, Any]:
        """Return a schema with all that it refers to, and nothing else of the document."""
        definitions: dict[str, Any] = {}
        waiting = [name]
        while waiting:
            each = waiting.pop()
            if each not in definitions:
                definitions[each] = _converted(self._document["schemas"][each], waiting)
        return {"$ref": f"#/$defs/{name}", "$defs": definitions}


def _converted(schema: Mapping[str, Any], needed: list[str]) -> dict[str, Any]:
    """Return a discovery schema as JSON Schema; unknown keys of objects are refused, as Google refuses them."""
    if reference := schema.get("$ref"):
        needed.append(reference)
        return {"$ref": f"#/$defs/{reference}"}
    kind = schema.get("type")
    if kind == "object":
        more = schema.get("additionalProperties")
        return {
            "type": "object",
            "properties": {key: _converted(each, needed) for key, each in schema.get("properties", {}).items()},
            "additionalProperties": _converted(more, needed) if more else False,
        }
    if kind == "array":
        return {"type": "array", "items": _converted(schema["items"], needed)}
    if kind == "any":
        return {}
    if schema.get("format") in ("int64", "uint64"):
        return {"type": ["string", "integer"], "pattern": r"^-?\d+$"}
    result: dict[str, Any] = {"type": kind}
    if "enum" in schema:
        result["enum"] = schema["enum"]
    if "pattern" in schema and kind == "string":
        result["pattern"] = f"^(?:{schema['pattern']})$"
    return result


@lru_cache
def service(name: str) -> Service:
    """Return a service by the name of its document in google-api-python-client, such as `compute.v1`."""
    found = importlib.util.find_spec("googleapiclient")
    assert found is not None, "google-api-python-client is a dependency of the tests"
    path = Path(str(found.origin)).parent / "discovery_cache" / "documents" / f"{name}.json"
    return Service(json.loads(path.read_text()))
