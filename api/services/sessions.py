"""Signing in: people by password, systems by client credentials."""

import base64
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus

from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import select

from api.auth.passwords import verify_secret
from api.auth.tokens import Tokens
from api.errors import InvalidCredentials
from api.models.principals import Principal, PrincipalKind, TokenRead

CLIENT_CREDENTIALS = "client_credentials"


async def _verified(
    session: AsyncSession, kind: PrincipalKind, login: str, secret: str
) -> Principal | None:
    """Return the principal when the secret is its own; unknown ones take as long."""
    principal = await session.scalar(
        select(Principal).where(
            Principal.login == login,
            Principal.kind == kind,
            Principal.disabled_at == None,  # noqa: E711 - SQL, not Python
        )
    )
    matches = await verify_secret(secret, principal.secret_hash if principal else None)
    return principal if matches else None


async def sign_in(session: AsyncSession, tokens: Tokens, username: str, password: str) -> TokenRead:
    """Sign a person in; 401 for an unknown name as for a wrong password."""
    login = username.strip().lower()
    principal = await _verified(session, PrincipalKind.user, login, password)
    if principal is None:
        raise InvalidCredentials
    token, life = tokens.issue(principal.id, principal.login)
    return TokenRead(access_token=token, expires_in=life)


@dataclass(frozen=True)
class TokenAnswer:
    """An answer of the token endpoint, as RFC 6749, section 5, shapes it."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(
        default_factory=lambda: {"Cache-Control": "no-store", "Pragma": "no-cache"}
    )


def _refused(error: str, status: int = 400) -> TokenAnswer:
    answer = TokenAnswer(status, {"error": error})
    if status == 401:  # noqa: PLR2004 - Unauthorized
        answer.headers["WWW-Authenticate"] = 'Basic realm="noidai", charset="UTF-8"'
    return answer


def _basic(authorization: str) -> tuple[str, str] | None:
    """Read HTTP Basic credentials, each form-encoded (RFC 6749, section 2.3.1)."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:  # not base64, or not text
        return None
    return (unquote_plus(name), unquote_plus(secret)) if colon else None


async def client_token(
    session: AsyncSession,
    tokens: Tokens,
    grant_type: str | None,
    authorization: str,
    client_id: str | None,
    client_secret: str | None,
) -> TokenAnswer:
    """Issue a token to a client, or refuse as RFC 6749, section 5.2, says."""
    if grant_type is None:
        return _refused("invalid_request")
    if grant_type != CLIENT_CREDENTIALS:
        return _refused("unsupported_grant_type")
    given = _basic(authorization)
    if authorization and client_secret is not None:
        return _refused("invalid_request")  # one way at a time (section 2.3)
    if given is None and client_id and client_secret:
        given = client_id, client_secret
    if given is None or "\0" in given[0]:
        return _refused("invalid_client", 401)
    client = await _verified(session, PrincipalKind.client, *given)
    if client is None:
        return _refused("invalid_client", 401)
    token, life = tokens.issue(client.id, client.login)
    return TokenAnswer(200, {"access_token": token, "token_type": "Bearer", "expires_in": life})
