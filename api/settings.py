"""Every setting: `NOIDAI_*` variables or a `.env` file, read once and never changed."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class SettingsError(Exception):
    """A setting is missing or wrong; the message is one line that says what to do."""


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
    public_url: str | None = None
    """Issuer of tokens and base of absolute links; unset: `http://127.0.0.1:{port}`."""
    port: int = Field(default=8000, ge=1, le=65535)
    access_token_minutes: int = Field(default=10, ge=1, le=60)
    max_body_bytes: int = Field(default=10 * 1024 * 1024, ge=1024)
    database_pool_size: int = Field(default=10, ge=1, le=100)
    statement_timeout_ms: int = Field(default=15_000, ge=100)

    @property
    def embedded(self) -> bool:
        """Whether the service brings its own PostgreSQL."""
        return self.database_url is None

    @property
    def issuer(self) -> str:
        """The `iss` and `aud` of access tokens."""
        return (self.public_url or f"http://127.0.0.1:{self.port}").rstrip("/")
