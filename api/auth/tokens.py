"""Access tokens: RFC 9068 `at+jwt`, ES256, ten minutes; keys live in the database, encrypted.

Nothing is taken from a token's header but `kid` (RFC 8725): the algorithm, audience, issuer and
type are ours. A `kid` that this worker does not know yet is looked up in the database, and which
key signs is read anew every few seconds: a rotation needs no restart.
"""

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, cast
from uuid import UUID

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jose import JWTError, jwk, jwt
from jose.utils import base64url_encode
from sqlalchemy import or_, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, delete, select, update

from api import clock, ids
from api.auth.secrets import Secrets
from api.errors import Unauthenticated
from api.models.principals import SigningKey

ALGORITHM = "ES256"
TYPE = "at+jwt"
LARGEST = 4096
"""Characters of the largest token that is looked at."""
MOST_REMEMBERED = 10_000
SIGNER_FRESH = timedelta(seconds=3)
"""How long a worker may go on signing with a key that was replaced elsewhere."""
KEYS_FRESH = timedelta(minutes=1)
"""How long a worker may not have heard that a key was retired."""
OVERLAP = timedelta(minutes=1)
"""What a replaced key is kept beyond the life of a token: late signers, clocks that differ."""
NEVER = datetime.max.replace(tzinfo=UTC)


class Verified(NamedTuple):
    """What a token that holds says, and until when it need not be checked again."""

    principal_id: UUID
    session_id: UUID | None
    until: datetime


@dataclass
class Tokens:
    """Issues and verifies access tokens; makes refresh tokens."""

    issuer: str
    minutes: int
    secrets: Secrets

    def __post_init__(self) -> None:
        """Start without keys: `load_keys` brings them."""
        self._public: dict[str, tuple[Any, datetime]] = {}
        self._jwks: list[tuple[dict[str, str], datetime]] = []
        self._signer: tuple[str, Any] | None = None
        self._loaded = datetime.min.replace(tzinfo=UTC)
        self._verified: dict[str, Verified] = {}

    async def load_keys(self, session: AsyncSession) -> None:
        """Read the signing keys; make the first one when there is none."""
        keys = await self._known_keys(session)
        if not any(key.retired_at is None for key in keys):
            await session.execute(text("select pg_advisory_xact_lock(hashtext('noidai keys'))"))
            keys = await self._known_keys(session)
        if not any(key.retired_at is None for key in keys):
            keys.append(self._make_key())
            session.add(keys[-1])
        self._jwks = [
            (dict(sorted(key.public_jwk.items())), key.retired_at or NEVER) for key in keys
        ]
        self._public = {
            key.kid: (jwk.construct(key.public_jwk, ALGORITHM), key.retired_at or NEVER)
            for key in keys
        }
        newest = next(key for key in reversed(keys) if key.retired_at is None)
        if self._signer is None or self._signer[0] != newest.kid:
            private = self.secrets.decrypt(newest.private_pem).decode()
            self._signer = newest.kid, jwk.construct(private, ALGORITHM)
        self._loaded = clock.now()

    async def keep_up(self, session: AsyncSession, fresh: timedelta = SIGNER_FRESH) -> None:
        """Read the keys again when they were read too long ago."""
        if abs(clock.now() - self._loaded) > fresh:
            await self.load_keys(session)

    @staticmethod
    async def _known_keys(session: AsyncSession) -> list[SigningKey]:
        retired = col(SigningKey.retired_at)
        statement = select(SigningKey).where(or_(retired.is_(None), retired > clock.now()))
        return list((await session.scalars(statement.order_by("created_at"))).all())

    async def rotate(self, session: AsyncSession) -> str:
        """Make a new signing key and return its `kid`.

        The old one stays published and verifies until its last token has expired; its private
        half is forgotten at once, and the row of one that was retired earlier with it.
        """
        await session.execute(text("select pg_advisory_xact_lock(hashtext('noidai keys'))"))
        now = clock.now()
        retired = col(SigningKey.retired_at)
        await session.execute(delete(SigningKey).where(retired <= now))
        await session.execute(
            update(SigningKey)
            .where(retired.is_(None))
            .values(retired_at=now + timedelta(minutes=self.minutes) + OVERLAP, private_pem=b"")
        )
        key = self._make_key()
        session.add(key)
        await session.flush()
        return key.kid

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
        now = clock.now()
        return {"keys": [key for key, until in self._jwks if now < until]}

    def issue(
        self, principal_id: UUID, client_id: str, session_id: UUID | None = None
    ) -> tuple[str, int]:
        """Return an access token and its life in seconds; `keep_up` comes first.

        With a session (`sid`, as OpenID Connect names it) it ends when that does.
        """
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
        if session_id is not None:
            claims["sid"] = str(session_id)
        token = jwt.encode(claims, key, ALGORITHM, headers={"kid": kid, "typ": TYPE})
        return token, int(life.total_seconds())

    def remembered(self, token: str) -> Verified | None:
        """Return what a token says that was verified within the last minute.

        Checking a signature takes 0.2 ms. Whether the principal, session and grants still hold is
        another's question.
        """
        known = self._verified.get(token)
        return known if known is not None and clock.now() < known.until else None

    async def verify(self, token: str, session: AsyncSession) -> Verified:
        """Return what a token says that holds; 401 for any other."""
        known = await self._verify(token, session)
        if len(self._verified) >= MOST_REMEMBERED:
            self._verified.clear()
        self._verified[token] = known
        return known

    async def _verify(self, token: str, session: AsyncSession) -> Verified:
        if len(token) > LARGEST:
            raise Unauthenticated("the token is too large")
        try:
            kid = _kid(jwt.get_unverified_header(token))
            await self.keep_up(session, KEYS_FRESH)
            if kid not in self._public:
                await self.load_keys(session)
            key, retired = self._public[kid]
            claims = jwt.decode(
                token,
                key,
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
            now = clock.now()
            _check_clock(claims, now, retired)
            expires = datetime.fromtimestamp(int(claims["exp"]), now.tzinfo)
            sid = claims.get("sid")
            return Verified(
                UUID(claims["sub"]),
                None if sid is None else UUID(sid),
                min(expires, retired, now + KEYS_FRESH),
            )
        except (JWTError, KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
            raise Unauthenticated("the token is invalid or has expired") from error

    def new_refresh_token(self, session_id: UUID) -> tuple[str, bytes]:
        """Return a refresh token and its hash: the session, 256 random bits, our mark on both.

        By the mark an outworn token of ours is told from an invention: only the former may end
        its session, and neither has to be kept for that.
        """
        core = session_id.bytes + secrets.token_bytes(32)
        token = urlsafe_b64encode(core + self._mark(core)).decode()
        return token, hashlib.sha256(core).digest()

    def read_refresh_token(self, token: str) -> tuple[UUID, bytes] | None:
        """Return the session of a token that we made, and the token's hash; else `None`.

        Plain SHA-256 keeps it: nobody can try out 256 random bits, so a slow or salted hash,
        which a guessable password needs, would only cost time.
        """
        try:
            raw = urlsafe_b64decode(token)
        except ValueError:
            return None
        core, mark = raw[:48], raw[48:]
        if not hmac.compare_digest(self._mark(core), mark):
            return None
        return UUID(bytes=core[:16]), hashlib.sha256(core).digest()

    def _mark(self, core: bytes) -> bytes:
        return self.secrets.hash_content(["refresh token", core.hex()])[:24]


def _kid(header: dict[str, Any]) -> str:
    """Return the key's name from the header of an access token; refuse other types."""
    if str(header.get("typ")).lower() != TYPE or not isinstance(header.get("kid"), str):
        raise Unauthenticated("not an access token of this service")
    return cast("str", header["kid"])


def _check_clock(claims: dict[str, Any], now: datetime, retired: datetime) -> None:
    """Refuse a token from the future, whose clock is not ours, and any of a retired key."""
    if cast("int", claims["iat"]) > now.timestamp() + 60:
        raise Unauthenticated("the token is not valid yet")
    if now >= retired:
        raise Unauthenticated("the key of the token is retired")
