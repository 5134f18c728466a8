"""The application: wiring only."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, Depends, FastAPI

from api import documents, requests
from api.auth.secrets import Secrets
from api.auth.tokens import Tokens
from api.db import create_engine, transaction
from api.pagination import Cursors
from api.routers import (
    admin_units,
    batch,
    clients,
    health,
    households,
    indicators,
    me,
    members,
    memberships,
    oauth,
    observations,
    role_grants,
    service_types,
    sessions,
    support_events,
    teams,
    users,
)
from api.settings import Settings

NOUNS = (  # the busiest first: a path is looked for in this order
    support_events,
    batch,
    observations,
    teams,
    households,
    members,
    memberships,
    admin_units,
    service_types,
    indicators,
    sessions,
    me,
    users,
    clients,
    role_grants,
)


def create_app(settings: Settings, database_url: str, secret: str) -> FastAPI:
    """Return the service on the database at `database_url`, as `noidai_app`.

    `secret` is `NOIDAI_SECRET_KEY`, or what the embedded mode keeps beside its data.
    """
    secrets = Secrets(secret)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.engine = create_engine(
            database_url,
            pool_size=settings.database_pool_size,
            statement_timeout_ms=settings.statement_timeout_ms,
        )
        async with transaction(app.state.engine) as session:
            await app.state.tokens.load_keys(session)
        yield
        await app.state.engine.dispose()

    app = FastAPI(
        **documents.DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
        max_body_size=settings.max_body_bytes,
        dependencies=[Depends(requests.strict_query)],
    )
    app.state.secrets = secrets
    app.state.cursors = Cursors(secrets.cursors)
    app.state.tokens = Tokens(settings.issuer, settings.access_token_minutes, secrets)
    requests.install(app)
    app.add_middleware(requests.Trace)
    v1 = APIRouter(prefix="/v1")
    for noun in NOUNS:
        v1.include_router(noun.router)
    app.include_router(v1)
    app.include_router(oauth.router)
    app.include_router(health.router)
    documents.install(app)
    return app
