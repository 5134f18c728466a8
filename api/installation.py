"""What every command stands on: the settings, the database, the secret."""

import asyncio
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from api import db, embedded
from api.settings import Settings, SettingsError

EMBEDDED_SECRET = "secret_key"  # noqa: S105 - a file's name


def stop(message: str) -> NoReturn:
    """End with one line that says what to do."""
    typer.echo(f"noidai: {message}", err=True)
    raise SystemExit(1)


def load_settings() -> Settings:
    """Read the settings; a wrong one is named in one line."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name, *within = map(str, first["loc"])
        place = "".join(f" {step}:" for step in within)
        raise SettingsError(f"NOIDAI_{name.upper()}:{place} {first['msg']}") from error


@contextmanager
def open_database(settings: Settings, *, serving: bool = False) -> Iterator[embedded.Urls]:
    """Give the owner's and the service's URL: of the configured database, or of our own."""
    if settings.database_url is not None:
        owner = settings.database_owner_url or settings.database_url
        yield embedded.Urls(owner=owner, app=settings.database_url)
        return
    with embedded.running(settings.data_dir, serving=serving) as urls:
        yield urls


def check_settings(settings: Settings) -> None:
    """Refuse to start without a secret that an operator chose, outside the embedded mode."""
    if settings.secret_key is None and not settings.embedded:
        raise SettingsError(
            "NOIDAI_SECRET_KEY is missing: with NOIDAI_DATABASE_URL, give a secret of at least "
            "32 characters and keep it (e.g. `openssl rand -hex 32`)"
        )


def secret_of(settings: Settings) -> str:
    """Return `NOIDAI_SECRET_KEY`, or the secret that the embedded mode keeps beside its data."""
    if settings.secret_key is not None:
        return settings.secret_key.get_secret_value()
    path = settings.data_dir / EMBEDDED_SECRET
    try:
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
    except FileExistsError:
        pass
    return path.read_text().strip()


def do[T](app_url: str, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    """Return what `work` does in one transaction of its own, as the service."""

    async def once(engine: AsyncEngine) -> T:
        async with db.transaction(engine) as session:
            return await work(session)

    return do_at_length(app_url, once)


def do_at_length[T](app_url: str, work: Callable[[AsyncEngine], Awaitable[T]]) -> T:
    """Return what `work` does in as many transactions as it takes, as the service."""

    async def run() -> T:
        engine = db.create_engine(app_url)
        try:
            return await work(engine)
        finally:
            await engine.dispose()

    return asyncio.run(run())


def check_port(host: str, port: int) -> None:
    """End the command when nothing can listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = error.strerror or str(error)
            stop(f"cannot listen on {host}:{port} ({reason}); choose another with --port")
