"""The application: wiring only."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from api import documents, gate, requests, worker
from api.auth.callers import Callers
from api.auth.issuers import Issuers
from api.auth.secrets import Secrets
from api.auth.tokens import Tokens
from api.db import create_engine, transaction
from api.driver import Hot
from api.pagination import Cursors
from api.routers import (
    activities,
    admin_units,
    audit_entries,
    batch,
    break_glass,
    campaigns,
    clients,
    closed_periods,
    commendations,
    data_subject_requests,
    devices,
    health,
    households,
    indicators,
    me,
    members,
    memberships,
    oauth,
    observations,
    polls,
    reorganisations,
    reports,
    role_grants,
    service_types,
    sessions,
    statistics,
    support_events,
    targets,
    teams,
    users,
)
from api.services.audit import READINGS
from api.services.closed_revisions import Revisions
from api.services.observation_answers import Answers
from api.services.observation_streams import Streams
from api.services.target_answers import TargetAnswers
from api.settings import Settings

NOUNS = (  # the busiest first: a path is looked for in this order
    support_events,
    batch,
    observations,
    teams,
    households,
    members,
    memberships,
    activities,
    admin_units,
    reorganisations,
    service_types,
    indicators,
    campaigns,
    commendations,
    statistics,
    targets,
    closed_periods,
    reports,
    sessions,
    me,
    users,
    clients,
    devices,
    role_grants,
    break_glass,
    data_subject_requests,
    audit_entries,
    oauth,
    health,
)
MOST_CLOSING = 2
"""Periods that a worker closes at once: each takes two connections, and others need some too."""


def create_app(settings: Settings, database_url: str, secret: str) -> FastAPI:
    """Return the service on the database at `database_url`, as `noidai_app`.

    `secret` is `NOIDAI_SECRET_KEY`, or what the embedded mode keeps beside its data.
    """
    secrets = Secrets(secret, settings.beneficiary_keys)
    shares = gate.Shares(settings.rate_limit, settings.rate_limit_url)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.engine = create_engine(
            database_url,
            pool_size=settings.database_pool_size,
            statement_timeout_ms=settings.statement_timeout_ms,
        )
        async with transaction(app.state.engine) as session:
            await app.state.tokens.load_keys(session)
        app.state.hot = Hot(
            database_url,
            size=settings.database_pool_size,
            statement_timeout_ms=settings.statement_timeout_ms,
            readings=READINGS,
        )
        app.state.answers = Answers(app.state.engine, app.state.hot)
        app.state.target_answers = TargetAnswers(app.state.hot)
        app.state.revisions = Revisions(app.state.hot)
        app.state.closing = asyncio.Semaphore(MOST_CLOSING)
        app.state.callers = Callers(app.state.engine, database_url, secrets, app.state.cursors)
        watching = asyncio.create_task(app.state.callers.watch.run())
        with worker.telling(app.state.streams.closing):
            async with worker.working(database_url):
                yield
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        await app.state.hot.close()
        await shares.close()
        await app.state.engine.dispose()

    app = FastAPI(
        **documents.DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # looked for at each request
    )
    app.state.admin_totp_required = settings.admin_totp_required
    app.state.issuers = Issuers(settings.oidc_issuers)
    app.state.secrets = secrets
    app.state.cursors = Cursors(secrets.cursors)
    app.state.streams = Streams(settings.max_streams)
    app.state.tokens = Tokens(settings.issuer, settings.access_token_minutes, secrets)
    requests.install(app)
    app.add_middleware(polls.Polls)
    app.add_middleware(gate.Limit, largest=settings.max_body_bytes, deepest=settings.max_json_depth)
    app.add_middleware(
        gate.Gate,
        shares=shares,
        places=settings.max_concurrent_requests,
        seconds=settings.request_timeout_seconds,
    )
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=gate.SENT,
            expose_headers=gate.SHOWN,
            max_age=600,
        )
    app.add_middleware(requests.Trace)
    for noun in NOUNS:  # as they are: what is included is matched twice, and half as fast
        app.router.routes.extend(noun.router.routes)
    documents.install(app)
    return app
