"""The OpenAPI 3.1 document, made from the route table."""

import inspect
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from atoll import __version__
from atoll.client.views import Problem
from federation.api.route import Access, Route

_PART = re.compile(r"\{(\w+)\}")


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the document of `routes`."""
    types = list(dict.fromkeys([Problem, *(t for route in routes for t in (route.body, route.answer) if t)], None))
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    by_type = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_type)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Atoll",
            "version": __version__,
            "summary": "One ring of all your compute",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "an API token, `atk_…`"},
                "page": {"type": "apiKey", "in": "cookie", "name": "atoll_page"},
            },
        },
    }


def _operation(route: Route, by_type: dict[Any, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _operation_id(route),
        "summary": route.summary,
        "description": inspect.getdoc(route.handle) or route.summary,
        "tags": [_tag(route.path)],
        "security": [] if route.access is Access.OPEN else [{"token": []}, {"page": []}],
        "responses": {str(route.status): _answer(route, by_type), "default": _problem(by_type)},
    }
    parameters = [*_path_parameters(route), *_query_parameters(route)]
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": by_type[route.body]}}}
    return operation


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PART.findall(route.path)
    ]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    schema = msgspec.json.schema(route.query)
    properties = schema["$defs"][route.query.__name__] if "$defs" in schema else schema
    required = properties.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": part}
        for name, part in properties["properties"].items()
    ]


def _answer(route: Route, by_type: dict[Any, Any]) -> dict[str, Any]:
    if route.content == "websocket":
        return {"description": "the connection is a WebSocket from here on"}
    if route.content != "application/json":
        return {"description": route.summary, "content": {route.content: {"schema": {"type": "string"}}}}
    if route.answer is None:
        return {"description": "done"}
    return {"description": route.summary, "content": {"application/json": {"schema": by_type[route.answer]}}}


def _problem(by_type: dict[Any, Any]) -> dict[str, Any]:
    return {
        "description": "what went wrong, with a hint",
        "content": {"application/problem+json": {"schema": by_type[Problem]}},
    }


def _operation_id(route: Route) -> str:
    words = re.sub(r"[^a-z0-9]+", " ", _PART.sub(r"by \1", route.path.lower())).split()
    return "_".join([route.method.lower(), *[word for word in words if word not in ("v1", "by")]])


def _tag(path: str) -> str:
    words = [word for word in re.split(r"[/:.]", path) if word and not word.startswith("{") and word != "v1"]
    return words[1] if len(words) > 1 and words[0] == "projects" else words[0]
