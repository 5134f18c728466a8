"""Access tokens: RFC 9068 `at+jwt`, ES256, ten minutes; keys live in the database, encrypted.

Nothing is taken from a token's header but `kid` (RFC 8725): the algorithm, audience, issuer and
type are ours. A `kid` that this worker does not know yet is looked up once in the database.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jose import JWTError, jwk, jwt
from jose.utils import base64url_encode
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import select

from api import clock, ids
from api.auth.secrets import Secrets
from api.errors import Unauthenticated
from api.models.principals import SigningKey

ALGORITHM = "ES256"
TYPE = "at+jwt"
LARGEST = 4096
"""Characters of the largest token that is looked at."""
MOST_REMEMBERED = 10_000


@dataclass
class Tokens:
    """Issues and verifies access tokens."""

    issuer: str
    minutes: int
    secrets: Secrets

    def __post_init__(self) -> None:
        """Start without keys: `load_keys` brings them."""
        self._public: dict[str, Any] = {}
        self._jwks: list[dict[str, str]] = []
        self._signer: tuple[str, Any] | None = None
        self._verified: dict[str, tuple[UUID, int]] = {}

    async def load_keys(self, session: AsyncSession) -> None:
        """Read the signing keys; make the first one when there is none."""
        await session.execute(text("select pg_advisory_xact_lock(hashtext('noidai keys'))"))
        statement = select(SigningKey).where(SigningKey.retired_at == None)  # noqa: E711
        keys = list((await session.scalars(statement.order_by("created_at"))).all())
        if not keys:
            keys = [self._make_key()]
            session.add_all(keys)
        self._jwks = [dict(sorted(key.public_jwk.items())) for key in keys]
        self._public = {key.kid: jwk.construct(key.public_jwk, ALGORITHM) for key in keys}
        newest = keys[-1]
        private = self.secrets.decrypt(newest.private_pem).decode()
        self._signer = newest.kid, jwk.construct(private, ALGORITHM)

    def _make_key(self) -> SigningKey:
        private = ec.generate_private_key(ec.SECP256R1())
        numbers = private.public_key().public_numbers()
        kid = secrets.token_hex(8)
        pem = private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        public = {
            "kty": "EC",
            "crv": "P-256",
            "use": "sig",
            "alg": ALGORITHM,
            "kid": kid,
            "x": base64url_encode(numbers.x.to_bytes(32)).decode(),
            "y": base64url_encode(numbers.y.to_bytes(32)).decode(),
        }
        return SigningKey(
            kid=kid,
            created_at=clock.now(),
            public_jwk=public,
            private_pem=self.secrets.encrypt(pem),
        )

    @property
    def jwks(self) -> dict[str, Any]:
        """The public keys, as RFC 7517 says."""
        return {"keys": self._jwks}

    def issue(self, principal_id: UUID, client_id: str) -> tuple[str, int]:
        """Return an access token and its life in seconds."""
        if self._signer is None:
            raise RuntimeError("load_keys comes first")
        kid, key = self._signer
        now = clock.now()
        life = timedelta(minutes=self.minutes)
        claims = {
            "iss": self.issuer,
            "aud": self.issuer,
            "sub": str(principal_id),
            "client_id": client_id,
            "iat": int(now.timestamp()),
            "exp": int((now + life).timestamp()),
            "jti": str(ids.new_id()),
        }
        token = jwt.encode(claims, key, ALGORITHM, headers={"kid": kid, "typ": TYPE})
        return token, int(life.total_seconds())

    async def verify(self, token: str, session: AsyncSession) -> UUID:
        """Return the principal of a token that holds; 401 for any other.

        A signature takes 0.2 ms to check, so it is checked once: the token is remembered until it
        expires. Whether its principal and grants still hold is asked of the database each time.
        """
        principal_id, expires = self._verified.get(token, (None, 0))
        if principal_id is not None and clock.now().timestamp() < expires:
            return principal_id
        principal_id, expires = await self._verify(token, session)
        if len(self._verified) >= MOST_REMEMBERED:
            self._verified.clear()
        self._verified[token] = principal_id, expires
        return principal_id

    async def _verify(self, token: str, session: AsyncSession) -> tuple[UUID, int]:
        if len(token) > LARGEST:
            raise Unauthenticated("the token is too large")
        try:
            kid = _kid(jwt.get_unverified_header(token))
            if kid not in self._public:
                await self.load_keys(session)
            claims = jwt.decode(
                token,
                self._public[kid],
                algorithms=[ALGORITHM],
                audience=self.issuer,
                issuer=self.issuer,
                options={
                    "require_iat": True,
                    "require_exp": True,
                    "require_sub": True,
                    "require_aud": True,
                    "require_iss": True,
                    "leeway": 0,
                },
            )
            _check_clock(claims, clock.now())
            return UUID(claims["sub"]), int(claims["exp"])
        except (JWTError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise Unauthenticated("the token is invalid or has expired") from error


def _kid(header: dict[str, Any]) -> str:
    """Return the key's name from the header of an access token; refuse other types."""
    if str(header.get("typ")).lower() != TYPE or not isinstance(header.get("kid"), str):
        raise Unauthenticated("not an access token of this service")
    return cast("str", header["kid"])


def _check_clock(claims: dict[str, Any], now: datetime) -> None:
    """Refuse a token from the future: its clock is not ours."""
    if cast("int", claims["iat"]) > now.timestamp() + 60:
        raise Unauthenticated("the token is not valid yet")
