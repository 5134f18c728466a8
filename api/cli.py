"""`noidai`: the commands of the service."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from api import db, embedded
from api.installation import (
    check_port,
    check_settings,
    do,
    do_at_length,
    load_settings,
    open_database,
    secret_of,
    stop,
)
from api.settings import Settings, SettingsError

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__
)
keys = typer.Typer(no_args_is_help=True, help="The keys that sign tokens and hash beneficiaries.")
app.add_typer(keys, name="keys")
audit = typer.Typer(no_args_is_help=True, help="The record of who did, or saw, what.")
app.add_typer(audit, name="audit")


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Default: NOIDAI_PORT, 8000")] = None,
    workers: Annotated[int, typer.Option(min=1, max=64)] = 1,
    demo: Annotated[bool, typer.Option("--demo", help="Fill an empty database first")] = False,
) -> None:
    """Run the service; without NOIDAI_DATABASE_URL on a PostgreSQL of its own."""
    import uvicorn

    settings = load_settings()
    port = port or settings.port
    check_settings(settings)
    check_port(host, port)
    with open_database(settings, serving=True) as urls:
        if settings.embedded:
            asyncio.run(db.migrate(urls.owner))
        elif pending := asyncio.run(db.pending(urls.app)):
            stop(f"the database lacks {len(pending)} migration(s): run `noidai migrate` first")
        if demo and settings.embedded:
            from api.demo import is_empty
            from api.demo.console import load, show_accounts

            if asyncio.run(is_empty(urls.app)):
                load(urls, secret_of(settings), settings.beneficiary_keys)
            show_accounts(urls)
        os.environ |= {
            "NOIDAI_PORT": str(port),
            "NOIDAI_APP_URL": urls.app,
            "NOIDAI_APP_SECRET": secret_of(settings),
        }
        typer.echo(f"Nối Dài on http://{host}:{port} (docs at /docs)", err=True)
        uvicorn.run(
            "api.serving:service",
            factory=True,
            host=host,
            port=port,
            workers=workers,
            loop="uvloop",
            http="httptools",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=15,
        )


@app.command()
def migrate(
    plan: Annotated[bool, typer.Option("--plan", help="Only list what would run")] = False,
) -> None:
    """Bring the database to the newest migration; one migrator at a time."""
    settings = load_settings()
    with open_database(settings) as urls:
        if plan:
            for revision in asyncio.run(db.pending(urls.owner)):
                typer.echo(revision)
            return
        asyncio.run(db.migrate(urls.owner))
        typer.echo("the database is up to date")


@app.command()
def bootstrap(
    username: Annotated[str, typer.Option(help="Name to sign in with")],
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input")
    ] = False,
) -> None:
    """Make the first national_admin; exit 1 when there is one."""
    from pydantic import TypeAdapter

    from api.auth.password_policy import check_password
    from api.errors import ValidationFailed
    from api.models.principals import Password, Username
    from api.problems import body_of
    from api.services.role_grants import bootstrap as make_first_admin

    if not password_stdin:
        stop("give the password on standard input, with --password-stdin")
    settings = load_settings()
    try:
        name = TypeAdapter(Username).validate_python(username)
        password = TypeAdapter(Password).validate_python(sys.stdin.readline().rstrip("\r\n"))
    except ValidationError as error:
        stop(f"{error.title}: {error.errors()[0]['msg']}")
    try:
        check_password(password, name, "/password")
    except ValidationFailed as refusal:
        stop(f"Password: {body_of(refusal, 'en', None)['errors'][0]['message']}")

    with open_database(settings) as urls:
        asyncio.run(db.migrate(urls.owner))
        if not do(urls.app, lambda session: make_first_admin(session, name, password)):
            stop("there is a national_admin already (or the name is taken)")
    typer.echo(f"{name} is the first national_admin")


@app.command()
def demo(
    province: Annotated[str, typer.Option(help="Code of a province before 2025-07-01")] = "10",
    teams: Annotated[int, typer.Option(min=1, max=20_000)] = 1562,
    events: Annotated[int, typer.Option(min=0, max=5_000_000)] = 60_000,
) -> None:
    """Fill an empty embedded database with generated data, at the scale of Lào Cai in 2023."""
    from api.demo import DemoError, is_empty
    from api.demo.console import load, show_accounts

    settings = load_settings()
    if not settings.embedded:
        stop("demo data goes into the embedded database only: unset NOIDAI_DATABASE_URL")
    with open_database(settings) as urls:
        asyncio.run(db.migrate(urls.owner))
        if not asyncio.run(is_empty(urls.app)):
            stop("the database is not empty: give the demo its own NOIDAI_DATA_DIR")
        try:
            size = {"province": province, "teams": teams, "events": events}
            load(urls, secret_of(settings), settings.beneficiary_keys, **size)
        except DemoError as error:
            stop(str(error))
        show_accounts(urls)


@app.command()
def reorganise(
    file: Annotated[Path, typer.Argument(help="JSON, as POST /v1/reorganisations takes it")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what it would do")] = False,
) -> None:
    """Apply a reorganisation of units, all or nothing; print what became of it."""
    from api.errors import Refusal
    from api.models.reorganisations import ReorganisationCreate
    from api.problems import body_of, from_validation
    from api.services.reorganisations import reorganise_as_operator

    def refuse(refusal: Refusal) -> NoReturn:
        said = body_of(refusal, "en", None)
        faults = [f"{e['pointer']} {e['message']} {e['params']}" for e in said["errors"]]
        stop(f"{said['title']}: {'; '.join(faults)}")

    try:
        given = ReorganisationCreate.model_validate_json(file.read_bytes())
    except OSError as error:
        stop(f"{file} cannot be read: {error.strerror}")
    except ValidationError as error:
        refuse(from_validation([e | {"loc": ("body", *e["loc"])} for e in error.errors()]))
    given.dry_run = given.dry_run or dry_run
    settings = load_settings()
    with open_database(settings) as urls:
        if settings.embedded:
            asyncio.run(db.migrate(urls.owner))
        try:
            done = do(urls.app, lambda session: reorganise_as_operator(session, given))
        except Refusal as refusal:
            refuse(refusal)
    typer.echo(done.model_dump_json(indent=2))


@app.command()
def doctor(
    repair: Annotated[bool, typer.Option("--repair", help="Count anew what differs")] = False,
) -> None:
    """Check settings and database, and hold every total against a recount; exit 1 on a fault."""
    from api.services import event_folding

    async def examine(engine: AsyncEngine) -> dict[str, int]:
        if not await db.is_ready(engine):
            stop("the database lacks migrations: run `noidai migrate`")
        if repair:
            await event_folding.repair(engine)
        return await event_folding.differences(engine)

    settings = load_settings()
    check_settings(settings)
    with open_database(settings) as urls:
        found = do_at_length(urls.app, examine)
    typer.echo(f"{found.pop('rows')} rolls of events held against a recount")
    for name, rows in found.items():
        typer.echo(f"  {name}: {rows} differ")
    if any(found.values()):
        stop("totals differ from the facts: `noidai doctor --repair` counts them anew")


@keys.command()
def rotate() -> None:
    """Sign with a new key; the old one verifies until its last token has expired."""
    from api.auth.secrets import Secrets
    from api.auth.tokens import Tokens

    settings = load_settings()
    check_settings(settings)

    with open_database(settings) as urls:
        if settings.embedded:
            asyncio.run(db.migrate(urls.owner))
        secret = Secrets(secret_of(settings))
        tokens = Tokens(settings.issuer, settings.access_token_minutes, secret)
        kid = do(urls.app, tokens.rotate)
    typer.echo(f"{kid} signs from now on; running services follow within seconds")


@keys.command()
def rehash() -> None:
    """Wrap the hashes of beneficiaries with the keys that NOIDAI_HASH_KEYS gained."""
    from api.auth.secrets import Secrets
    from api.services.hash_keys import rehash as wrap

    settings = load_settings()
    check_settings(settings)

    with open_database(settings) as urls:
        if settings.embedded:
            asyncio.run(db.migrate(urls.owner))
        secrets = Secrets(secret_of(settings), settings.beneficiary_keys)
        rows = do_at_length(urls.app, lambda engine: wrap(engine, secrets))
    typer.echo(f"{rows} hashes wrapped; run it again once no process without the new key is left")


@audit.command()
def verify(
    root: Annotated[str | None, typer.Option(help="A root that was noted before, in hex")] = None,
) -> None:
    """Compute the chain anew; exit 1, naming the seal, where anything was changed or is missing."""
    from api.services import audit_seals

    with open_database(load_settings()) as urls:
        verdict = do(urls.app, lambda session: audit_seals.verify(session, root))
    if verdict.fault:
        stop(f"the audit does not hold: {verdict.fault}")
    typer.echo(f"{verdict.seals} seals over {verdict.entries} entries hold; root {verdict.root}")


@app.command()
def openapi() -> None:
    """Print the OpenAPI document."""
    from api.app import create_app

    document = create_app(Settings(_env_file=None), "postgresql://", "x" * 32).openapi()
    typer.echo(json.dumps(document, ensure_ascii=False, indent=2))


def main() -> None:
    """Run a command; whatever an operator can put right is said in one line."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        app()
    except (SettingsError, embedded.EmbeddedError) as error:
        stop(str(error))
    except (SQLAlchemyError, OSError) as error:
        cause = str(getattr(error, "orig", None) or error).splitlines()[0]
        stop(f"the database cannot be used ({cause}); check NOIDAI_DATABASE_URL")


if __name__ == "__main__":
    main()
