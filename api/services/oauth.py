"""The token endpoint: clients show a secret or an assertion (RFC 6749, section 4.4; RFC 7523)."""

import base64
import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import unquote_plus

from jose import JWTError, jwk, jwt
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from api import clock
from api.auth.tokens import Tokens
from api.models.principals import Principal, PrincipalKind
from api.services.guessing import Attempt
from api.services.sessions import holder, verified

CLIENT_CREDENTIALS = "client_credentials"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_ALGORITHMS: Final = {"EC": "ES256", "RSA": "RS256"}
"""By type of key: what an assertion may be signed with."""
LONGEST_ASSERTION = 5 * 60
"""Seconds for which a client may make an assertion valid."""
SKEW = 30
"""Seconds by which a client's clock may be ahead of ours."""
LONGEST_JTI = 255

_USE = text("""
    with worn as (delete from client_assertion where principal_id = :id and expires_at <= :now)
    insert into client_assertion (principal_id, jti_hash, expires_at) values (:id, :jti, :until)
    on conflict do nothing returning true
""")


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
    address: str,
    grant_type: str | None,
    authorization: str,
    client_id: str | None,
    client_secret: str | None,
    assertion_type: str | None,
    assertion: str | None,
) -> TokenAnswer:
    """Issue a token to a client, or refuse as RFC 6749, section 5.2, says.

    The client shows its secret (HTTP Basic or form) or an assertion that it signed (RFC 7523).
    """
    if grant_type is None:
        return _refused("invalid_request")
    if grant_type != CLIENT_CREDENTIALS:
        return _refused("unsupported_grant_type")
    if [bool(authorization), client_secret is not None, assertion is not None].count(True) > 1:
        return _refused("invalid_request")  # one way at a time (section 2.3)
    if assertion is not None:
        known = assertion_type == ASSERTION_TYPE
        client = await _asserting(session, tokens, client_id, assertion) if known else None
        return await _answered(session, tokens, client)
    given = _basic(authorization)
    if given is None and client_id and client_secret:
        given = client_id, client_secret
    if given is None or "\0" in given[0]:
        return _refused("invalid_client", 401)
    name, secret = given
    attempt = Attempt.of(tokens.secrets, name, address)
    client = await verified(session, PrincipalKind.client, attempt, secret)
    return await _answered(session, tokens, client)


async def _answered(session: AsyncSession, tokens: Tokens, client: Principal | None) -> TokenAnswer:
    if client is None:
        return _refused("invalid_client", 401)
    await tokens.keep_up(session)
    token, life = tokens.issue(client.id, client.login)
    return TokenAnswer(200, {"access_token": token, "token_type": "Bearer", "expires_in": life})


async def _asserting(
    session: AsyncSession, tokens: Tokens, client_id: str | None, assertion: str
) -> Principal | None:
    """Return the client that signed an assertion for us, not long ago and never shown before."""
    try:
        subject = str(jwt.get_unverified_claims(assertion)["sub"])
        kid = jwt.get_unverified_header(assertion).get("kid")
    except (JWTError, KeyError, TypeError, RecursionError):
        return None
    if not subject.isascii() or not subject.isprintable() or client_id not in {None, subject}:
        return None
    client = await session.scalar(holder(PrincipalKind.client, subject))
    if client is None or client.public_jwks is None:
        return None
    now = clock.now()
    claims = _signed(assertion, kid, client.public_jwks["keys"])
    until = _holds(claims, client.login, tokens.issuer, now.timestamp())
    if until is None:
        return None
    used = {
        "id": client.id,
        "jti": hashlib.sha256(claims["jti"].encode("utf-8", "surrogatepass")).digest(),
        "until": datetime.fromtimestamp(until, UTC),
        "now": now,
    }
    return client if await session.scalar(_USE, used) else None


def _signed(assertion: str, kid: object, keys: list[dict[str, str]]) -> dict[str, Any]:
    """Return the claims when one of the client's keys signed them, else none at all.

    The algorithm is the key's, whatever the header says (RFC 8725, section 3.1).
    """
    for key in keys:
        if kid is not None and key.get("kid", kid) != kid:
            continue
        algorithm = ASSERTION_ALGORITHMS[key["kty"]]
        checked = {"verify_aud": False, "leeway": SKEW}
        try:
            return jwt.decode(
                assertion, jwk.construct(key, algorithm), algorithms=[algorithm], options=checked
            )
        except (JWTError, ValueError, TypeError, OverflowError, RecursionError):
            continue
    return {}


def _holds(claims: dict[str, Any], client_id: str, issuer: str, now: float) -> float | None:
    """Return when the assertion expires, if it is the client's own, for us, and of now."""
    audience = claims.get("aud")
    ours = audience if isinstance(audience, list) else [audience]
    expires, made, jti = claims.get("exp"), claims.get("iat", now), claims.get("jti")
    if not isinstance(expires, (int, float)) or not isinstance(made, (int, float)):
        return None
    mine = claims.get("iss") == claims.get("sub") == client_id
    for_us = bool(ours) and all(a in (issuer, f"{issuer}/oauth/token") for a in ours)
    timely = now < expires <= now + LONGEST_ASSERTION + SKEW and made <= now + SKEW
    named = isinstance(jti, str) and 0 < len(jti) <= LONGEST_JTI
    return expires if mine and for_us and timely and named else None
