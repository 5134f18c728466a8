"""The public document, and what every route must have."""

import json
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from api.auth.permissions import Permission

COMMITTED = Path(__file__).parents[2] / "openapi" / "openapi.v1.json"
ANONYMOUS = {
    "create_session",
    "refresh_session",
    "create_access_token",
    "get_jwks",
    "get_oauth_metadata",
    "get_liveness",
    "get_readiness",
}


def operations(app: FastAPI) -> list[Any]:
    """Return every operation of the contract, with its path, dependencies and operation id."""
    found = [route for route in iter_route_contexts(app.routes) if hasattr(route, "operation_id")]
    return [route for route in found if getattr(route, "include_in_schema", False)]


async def test_the_committed_document_is_what_the_service_says(app: FastAPI) -> None:
    assert json.loads(COMMITTED.read_text(encoding="utf-8")) == app.openapi(), "run `make openapi`"


async def test_every_route_asks_for_a_permission(app: FastAPI) -> None:
    assert operations(app)
    for route in operations(app):
        asked = [
            getattr(dependency.call, "permission")  # noqa: B009 - a mark on a function
            for dependency in route.dependant.dependencies
            if hasattr(dependency.call, "permission")
        ]
        if route.operation_id in ANONYMOUS:
            assert asked == [], route.path
        else:
            assert len(asked) == 1, route.path
            assert isinstance(asked[0], Permission)


async def test_operations_have_names_of_their_own(app: FastAPI) -> None:
    names = [route.operation_id for route in operations(app)]
    assert len(names) == len(set(names))
    assert all(names)


async def test_the_schemas_are_those_of_a_simple_contract(app: FastAPI) -> None:
    text = json.dumps(app.openapi())
    assert app.openapi()["openapi"].startswith("3.1")
    for absent in ("oneOf", "-Input", "-Output", "HTTPValidationError", "discriminator"):
        assert absent not in text, absent


async def test_the_docs_page_asks_nobody_else(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert page.status_code == 200
    assert "https://" not in page.text
    for name in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.svg"):
        assert f"/docs/assets/{name}" in page.text
        assert (await client.get(f"/docs/assets/{name}")).status_code == 200
    assert (await client.get("/openapi.json")).json()["info"]["title"] == "Nối Dài"
