"""The OpenAPI document, and the page that shows it without any outside request."""

from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

from api.errors import refusals
from api.problems import MEDIA_TYPE

ASSETS = Path(__file__).parent / "data" / "docs"
PAGE_POLICY: Final = (
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
)
"""What the page may load: our own files, and the two blocks that Swagger UI's page carries."""
DESCRIPTION: Final[dict[str, Any]] = {
    "title": "Nối Dài",
    "version": "1.0.0",
    "summary": "The one source of truth of Vietnam's community digital technology teams",
    "description": (
        "Teams, members, households, support events and their totals, scoped by administrative "
        "unit. Sign in at `POST /v1/sessions` (people) or `POST /oauth/token` (systems) and send "
        "the access token as `Authorization: Bearer …`. Every refusal is a problem (RFC 9457), "
        "in Vietnamese or English by `Accept-Language`."
    ),
    "license_info": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
}

_PROBLEM: Final[dict[str, Any]] = {
    "title": "Problem",
    "type": "object",
    "description": "A refusal (RFC 9457).",
    "required": ["type", "title", "status", "code", "detail", "retryable", "errors"],
    "properties": {
        "type": {"type": "string", "examples": ["/problems/not_found"]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "Open: others may come."},
        "detail": {"type": "string", "description": "What to do."},
        "request_id": {"type": ["string", "null"]},
        "retryable": {"type": "boolean"},
        "errors": {"type": "array", "items": {"$ref": "#/components/schemas/FieldError"}},
    },
}
_FIELD_ERROR: Final[dict[str, Any]] = {
    "title": "FieldError",
    "type": "object",
    "description": "One thing wrong with one field.",
    "required": ["pointer", "code", "message", "params"],
    "properties": {
        "pointer": {"type": "string", "description": "JSON pointer (RFC 6901)"},
        "code": {"type": "string"},
        "message": {"type": "string"},
        "params": {"type": "object"},
    },
}


def _problem_answer(description: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {MEDIA_TYPE: {"schema": schema}}}


def document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document: the framework's, with our problems in place of its own 422."""
    if app.openapi_schema:
        return app.openapi_schema
    schema = get_openapi(routes=app.routes, **DESCRIPTION)
    schemas = schema.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    codes = [kind.code for kind in refusals()]
    problem = _PROBLEM["properties"]["code"] | {"examples": codes}
    schemas["Problem"] = _PROBLEM | {"properties": _PROBLEM["properties"] | {"code": problem}}
    schemas["FieldError"] = _FIELD_ERROR
    for path in schema["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            operation["responses"]["4XX"] = _problem_answer("A refusal that says what to do")
            operation["responses"]["5XX"] = _problem_answer("A fault of ours, or a short absence")
    app.openapi_schema = schema
    return schema


def install(app: FastAPI) -> None:
    """Serve `/openapi.json` and the page at `/docs`, from files of the project's own."""
    app.openapi = lambda: document(app)  # type: ignore[method-assign]
    app.mount("/docs/assets", StaticFiles(directory=ASSETS), name="docs")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        page = get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="Nối Dài",
            swagger_js_url="/docs/assets/swagger-ui-bundle.js",
            swagger_css_url="/docs/assets/swagger-ui.css",
            swagger_favicon_url="/docs/assets/favicon.svg",
            swagger_ui_parameters={"validatorUrl": None, "docExpansion": "none"},
        )
        page.headers["content-security-policy"] = PAGE_POLICY
        return page
