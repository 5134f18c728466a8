"""Every setting: `NOIDAI_*` variables or a `.env` file, read once and never changed."""

import ipaddress
import json
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from limits import parse
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

SHORTEST_KEY = 32


class SettingsError(Exception):
    """A setting is missing or wrong; the message is one line that says what to do."""


def is_loopback(url: str) -> bool:
    """Tell whether a URL leads to this machine itself."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class OidcIssuer(BaseModel):
    """An OpenID Connect provider whose people may sign in here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: Annotated[str, Field(min_length=1, max_length=500)]
    """As it stands in `iss`, to the letter."""
    audience: Annotated[str, Field(min_length=1, max_length=255)]
    """Our client id there: what `aud` must contain."""
    name: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """How people call it."""
    algorithms: Annotated[tuple[Literal["RS256", "ES256"], ...], Field(min_length=1)] = (
        "RS256",
        "ES256",
    )
    mfa_acr: tuple[str, ...] = ()
    """Values of `acr` that tell of a second factor, beside `amr` with `mfa` or `otp`."""

    @field_validator("issuer")
    @classmethod
    def _is_issuer(cls, value: str) -> str:
        parts = urlsplit(value)
        safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(value))
        if not safe or not parts.hostname or parts.query or parts.fragment or "@" in parts.netloc:
            raise ValueError("an issuer is an https:// URL without a query")
        return value


class Settings(BaseSettings):
    """What an operator may decide. Nothing secret has a default outside the embedded mode."""

    model_config = SettingsConfigDict(
        env_prefix="NOIDAI_", env_file=".env", extra="ignore", frozen=True
    )

    database_url: str | None = None
    """An existing PostgreSQL 18. Unset: an embedded one."""
    database_owner_url: str | None = None
    """The same database as the role that owns the tables, for migrations; unset: the same URL."""
    data_dir: Path = Path(".noidai")
    """Where the embedded PostgreSQL and its secret live."""
    secret_key: SecretStr | None = Field(default=None, min_length=32)
    """Encrypts signing keys, signs cursors, keys the hashes of beneficiaries."""
    hash_keys: SecretStr | None = None
    """Keys that wrap the hashes of beneficiaries once more, the oldest first: only ever appended
    to. A JSON list, or separated by commas; each of at least 32 characters."""
    public_url: str | None = None
    """Issuer of tokens and base of absolute links; unset: `http://127.0.0.1:{port}`."""
    port: int = Field(default=8000, ge=1, le=65535)
    access_token_minutes: int = Field(default=10, ge=1, le=60)
    require_admin_mfa: bool | None = None
    """Whether administrators need TOTP; unset: with a configured database, not with our own."""
    max_body_bytes: int = Field(default=10 * 1024 * 1024, ge=1024)
    max_json_depth: int = Field(default=32, ge=8, le=500)
    max_concurrent_requests: int = Field(default=256, ge=1)
    """Requests that a worker has under way; more are asked to come back (503)."""
    max_streams: int = Field(default=100, ge=1)
    """Streams of observations that a worker has open, each of them one of its requests."""
    request_timeout_seconds: float = Field(default=30, gt=0, le=600)
    rate_limit: str = "1000/minute"
    """Requests of a principal, or of a network address before sign-in, e.g. `1000/minute`."""
    rate_limit_url: str | None = Field(default=None, pattern=r"^rediss?://")
    """Redis or Valkey, which counts for all workers; unset: each worker counts its own."""
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Origins of web pages that may call the service, separated by commas; `*` means any."""
    oidc_issuers: Annotated[tuple[OidcIssuer, ...], NoDecode] = ()
    """OpenID Connect providers whose people may sign in, as a JSON list."""
    database_pool_size: int = Field(default=10, ge=1, le=100)
    statement_timeout_ms: int = Field(default=15_000, ge=100)

    @field_validator("rate_limit")
    @classmethod
    def _is_limit(cls, value: str) -> str:
        parse(value)
        return value

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @field_validator("hash_keys")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        keys = _listed(value)
        if len(set(keys)) < len(keys) or any(len(key) < SHORTEST_KEY for key in keys):
            raise ValueError(f"each key has at least {SHORTEST_KEY} characters and stands once")
        return value

    @property
    def beneficiary_keys(self) -> list[str]:
        """The keys of `hash_keys`."""
        return _listed(self.hash_keys)

    @field_validator("oidc_issuers", mode="before")
    @classmethod
    def _read_issuers(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except ValueError as error:
            raise ValueError("a JSON list is needed") from error

    @field_validator("oidc_issuers")
    @classmethod
    def _are_different(cls, value: tuple[OidcIssuer, ...]) -> tuple[OidcIssuer, ...]:
        if len({issuer.issuer for issuer in value}) != len(value):
            raise ValueError("an issuer is given twice")
        return value

    @property
    def admin_totp_required(self) -> bool:
        """Whether an administrator's session without a second factor can only enrol one."""
        return not self.embedded if self.require_admin_mfa is None else self.require_admin_mfa

    @property
    def embedded(self) -> bool:
        """Whether the service brings its own PostgreSQL."""
        return self.database_url is None

    @property
    def issuer(self) -> str:
        """The `iss` and `aud` of access tokens."""
        return (self.public_url or f"http://127.0.0.1:{self.port}").rstrip("/")


def _listed(keys: SecretStr | None) -> list[str]:
    """Read a JSON list of texts, or texts separated by commas."""
    text = keys.get_secret_value().strip() if keys else ""
    if not text.startswith("["):
        return [key.strip() for key in text.split(",") if key.strip()]
    try:
        found = json.loads(text)
    except ValueError:
        raise ValueError("not a JSON list") from None
    if not all(isinstance(key, str) for key in found):
        raise ValueError("not a list of texts")
    return list(found)
