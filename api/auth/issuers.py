"""Other OpenID Connect issuers: who they say somebody is, verified by the keys they publish.

Nothing is taken from a token's header but `kid` (RFC 8725): the algorithm is that of the issuer's
key, within those that the operator allows, and the issuer and the audience are configured. Keys are
read when they are first needed and kept for an hour; whoever invents names of keys makes us ask an
issuer at most twice a minute. One that cannot be reached holds up nobody but its own people.
"""

import asyncio
import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
from jose import JOSEError, jwk, jws

from api import clock
from api.errors import Unavailable
from api.settings import OidcIssuer, is_loopback

LOG = logging.getLogger("noidai")
DISCOVERY = "/.well-known/openid-configuration"
OLDEST = timedelta(minutes=10)
"""How long after its making an ID token signs in: it is a message, not a session."""
SKEW = timedelta(minutes=1)
"""By how much an issuer's clock may be ahead of ours."""
KEYS_FRESH = timedelta(hours=1)
ASK_AGAIN = timedelta(seconds=30)
"""The least time between two readings of an issuer's keys."""
TRY_AGAIN = timedelta(seconds=5)
"""The same after one that failed: meanwhile the answer is 503 at once."""
PATIENCE = 5
"""Seconds for both documents of an issuer."""
LARGEST = 64 * 1024
"""Bytes of the largest document that is read."""
LONGEST_SUBJECT = 255
SHORTEST_RSA = 2048
ALGORITHMS = {"EC": "ES256", "RSA": "RS256"}
SECOND_FACTORS = frozenset({"mfa", "otp"})
"""Values of `amr` (RFC 8176) that tell of a second factor."""
NOT_YET = datetime.min.replace(tzinfo=UTC)
_MALFORMED = (JOSEError, ValueError, TypeError, KeyError, AttributeError, RecursionError)


class Identity(NamedTuple):
    """Who an ID token tells of."""

    issuer: str
    subject: str
    proved_otp: bool
    spent: bytes
    """What is remembered of the token, so that it works once: a hash of what is signed."""
    until: datetime
    """How long it must be remembered: after that it is too old in any case."""


class _UnreadableError(ValueError):
    """An issuer's documents cannot be used, for a reason that operators want to know."""


class _Issuer:
    """One issuer and its keys."""

    def __init__(self, given: OidcIssuer) -> None:
        self.given = given
        self.keys: list[Mapping[str, Any]] = []
        self._read_at = self._tried_at = NOT_YET
        self._failed = False
        self._lock = asyncio.Lock()

    async def keep_up(self, kid: str | None) -> None:
        """Have fresh keys, and ask for them again when none is called `kid`; 503 without any."""
        async with self._lock:  # many wait for one answer
            now = clock.now()
            fresh = now - self._read_at < KEYS_FRESH
            if fresh and any(_named(self.keys, kid)):
                return
            if now - self._tried_at >= (TRY_AGAIN if self._failed else ASK_AGAIN):
                await self._read(now)
            elif self._failed or not fresh:
                raise Unavailable

    async def _read(self, now: datetime) -> None:
        self._tried_at, self._failed = now, True
        try:
            async with asyncio.timeout(PATIENCE):
                self.keys = await self._published()
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            reason = str(error) or type(error).__name__
            LOG.warning("the keys of %s cannot be read: %s", self.given.issuer, reason)
            raise Unavailable from error
        self._read_at, self._failed = now, False

    async def _published(self) -> list[Mapping[str, Any]]:
        """Return the keys that the issuer publishes (OpenID Connect Discovery 1.0, section 4)."""
        async with httpx.AsyncClient(timeout=PATIENCE, follow_redirects=False) as client:
            issuer = self.given.issuer
            about = await _document(client, issuer.rstrip("/") + DISCOVERY)
            if about.get("issuer") != issuer:
                raise _UnreadableError("its configuration is of another issuer")
            place = about.get("jwks_uri")
            if not isinstance(place, str) or not _is_safe(place, issuer):
                raise _UnreadableError("its jwks_uri is not https")
            keys = (await _document(client, place)).get("keys")
        if not isinstance(keys, list):
            raise _UnreadableError("its key set has no keys")
        return [key for key in keys if isinstance(key, dict)]


async def _document(client: httpx.AsyncClient, url: str) -> Mapping[str, Any]:
    """Read a JSON object: no redirect, no compression that could hide its size."""
    plain = {"Accept": "application/json", "Accept-Encoding": "identity"}
    async with client.stream("GET", url, headers=plain) as response:
        if response.status_code != httpx.codes.OK:
            raise _UnreadableError(f"{response.status_code} at {url}")
        content = b""
        async for part in response.aiter_raw():
            content += part
            if len(content) > LARGEST:
                raise _UnreadableError(f"more than {LARGEST} bytes at {url}")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _UnreadableError(f"no JSON at {url}") from error
    if not isinstance(found, dict):
        raise _UnreadableError(f"no JSON object at {url}")
    return found


def _is_safe(url: str, issuer: str) -> bool:
    """Tell whether keys may come from there: over TLS, or all of it on this machine (tests)."""
    parts = urlsplit(url)
    here = is_loopback(url) and is_loopback(issuer)
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and here))


def _named(keys: Iterable[Mapping[str, Any]], kid: str | None) -> Iterable[Mapping[str, Any]]:
    """Return the keys that may have signed a token: those of its `kid`, or all without one."""
    return (key for key in keys if kid is None or key.get("kid") == kid)


class Issuers:
    """The issuers whose people may sign in here."""

    def __init__(self, given: Iterable[OidcIssuer]) -> None:
        """Know them by name; nobody is asked for anything before somebody signs in."""
        self._known = {issuer.issuer: _Issuer(issuer) for issuer in given}

    def __contains__(self, issuer: str) -> bool:
        """Tell whether an issuer is configured."""
        return issuer in self._known

    async def verify(self, token: str) -> Identity | None:
        """Return who an ID token tells of, if it holds for us, now (Core 1.0, section 3.1.3.7).

        Whether it was used already, and whose account that is, is another's question. 503 when
        the issuer cannot be asked for its keys. Hold no database connection meanwhile.
        """
        now = clock.now()
        try:
            header = jws.get_unverified_header(token)
            claims = json.loads(jws.get_unverified_claims(token))
            issuer = self._known[claims["iss"]]
            holds = _is_id_token(header, claims) and _is_ours(issuer.given, claims, now)
            identity = _told(issuer.given, token, claims) if holds else None
        except _MALFORMED:
            return None
        if identity is None:
            return None
        # Only now, so that nobody makes us ask by a token that could not hold anyway.
        kid = header.get("kid")
        await issuer.keep_up(kid)
        keys = _named(issuer.keys, kid)
        signed = any(_signed(token, key, issuer.given.algorithms) for key in keys)
        return identity if signed else None


def _signed(token: str, key: Mapping[str, Any], allowed: Iterable[str]) -> bool:
    """Tell whether a key signed a token, by the algorithm that is the key's, whatever it says."""
    try:
        algorithm = ALGORITHMS[key["kty"]]
        if (
            algorithm not in allowed
            or key.get("alg", algorithm) != algorithm
            or key.get("use", "sig") != "sig"
        ):
            return False
        parsed: Any = jwk.construct(dict(key), algorithm)
        size = parsed.prepared_key.key_size
        if size < SHORTEST_RSA if algorithm == "RS256" else size != 256:  # noqa: PLR2004 - P-256
            return False
        jws.verify(token, parsed, [algorithm])
    except _MALFORMED:
        return False
    return True


def _moment(seconds: Any) -> datetime:
    """Return a time of a token; `TypeError` or `ValueError` for what is none."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError("not a number")
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError) as error:
        raise ValueError("not a time") from error


def _is_id_token(header: Mapping[str, Any], claims: Mapping[str, Any]) -> bool:
    """Tell an ID token from what else an issuer signs: access tokens, events such as logouts."""
    return (
        str(header.get("typ", "JWT")).upper() == "JWT"
        and "crit" not in header
        and isinstance(header.get("kid", ""), str)
        and "events" not in claims
    )


def _is_ours(given: OidcIssuer, claims: Mapping[str, Any], now: datetime) -> bool:
    """Tell whether a token was made for us, not long ago, about somebody."""
    audience, subject = claims["aud"], claims["sub"]
    audiences = audience if isinstance(audience, list) else [audience]
    party = claims.get("azp", given.audience if len(audiences) == 1 else None)
    for_us = given.audience in audiences and party == given.audience
    timely = now - OLDEST <= _moment(claims["iat"]) <= now + SKEW and now < _moment(claims["exp"])
    if "nbf" in claims:
        timely = timely and _moment(claims["nbf"]) <= now + SKEW
    named = (
        isinstance(subject, str)
        and 0 < len(subject) <= LONGEST_SUBJECT
        and subject.isascii()
        and subject.isprintable()
    )
    return for_us and timely and named


def _told(given: OidcIssuer, token: str, claims: Mapping[str, Any]) -> Identity:
    """Return who a token tells of, and whether the issuer says that a second factor was proved."""
    methods = claims.get("amr")
    by_method = isinstance(methods, list) and any(method in SECOND_FACTORS for method in methods)
    return Identity(
        given.issuer,
        claims["sub"],
        by_method or claims.get("acr") in given.mfa_acr,
        hashlib.sha256(token.rpartition(".")[0].encode()).digest(),
        _moment(claims["iat"]) + OLDEST + SKEW,
    )
