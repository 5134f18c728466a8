"""/oauth/token and the well-known documents: systems sign in (RFC 6749, 7517, 8414)."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from api.auth.dependencies import Session, tokens_of
from api.routers.routes import Strict
from api.services import oauth

router = APIRouter(tags=["identity"], route_class=Strict)
Field = Annotated[str | None, Form(max_length=512)]
Assertion = Annotated[str | None, Form(max_length=4096)]


@router.post("/oauth/token", operation_id="create_access_token")
async def create_access_token(
    request: Request,
    session: Session,
    grant_type: Field = None,
    client_id: Field = None,
    client_secret: Field = None,
    client_assertion_type: Field = None,
    client_assertion: Assertion = None,
    scope: Field = None,  # noqa: ARG001 - accepted by the standard, rights come from grants
) -> Response:
    """Issue a token to a client by its credentials (RFC 6749, section 4.4).

    The secret comes by HTTP Basic or in the form; a client with keys sends an assertion instead
    (`private_key_jwt`, RFC 7523). Refusals are those of section 5.2.
    """
    outcome = await oauth.client_token(
        session,
        tokens_of(request),
        request.client.host if request.client else "",
        grant_type,
        request.headers.get("authorization", ""),
        client_id,
        client_secret,
        client_assertion_type,
        client_assertion,
    )
    return JSONResponse(outcome.body, outcome.status, headers=outcome.headers)


@router.get("/.well-known/jwks.json", operation_id="get_jwks")
async def get_jwks(request: Request, session: Session) -> dict[str, Any]:
    """Return the public keys that verify access tokens (RFC 7517)."""
    tokens = tokens_of(request)
    await tokens.keep_up(session)
    return tokens.jwks


@router.get("/.well-known/oauth-authorization-server", operation_id="get_oauth_metadata")
async def get_oauth_metadata(request: Request) -> dict[str, Any]:
    """Return the metadata of the authorisation server (RFC 8414)."""
    issuer = tokens_of(request).issuer
    return {
        "issuer": issuer,
        "token_endpoint": f"{issuer}/oauth/token",
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": [
            "client_secret_basic",
            "client_secret_post",
            "private_key_jwt",
        ],
        "token_endpoint_auth_signing_alg_values_supported": sorted(
            oauth.ASSERTION_ALGORITHMS.values()
        ),
        "response_types_supported": [],
        "service_documentation": f"{issuer}/docs",
    }
