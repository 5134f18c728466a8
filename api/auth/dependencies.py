"""The parameter types of routes: the session, the caller, the permission that a route asks for."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, cast

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from sqlalchemy.ext.asyncio import AsyncSession

from api import clock
from api.auth import caller as callers
from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.auth.secrets import Secrets
from api.auth.tokens import Tokens
from api.db import transaction
from api.errors import Unauthenticated
from api.pagination import Cursors


async def _session(request: Request) -> AsyncIterator[AsyncSession]:
    """Give one transaction to a request: it commits before the answer leaves.

    A request that only reads sees one moment: its totals, pages and shares agree.
    """
    reads = request.method == "GET"
    async with transaction(request.app.state.engine, snapshot=reads) as session:
        yield session


Session = Annotated[AsyncSession, Depends(_session, scope="function")]
_bearer = HTTPBearer(auto_error=False, bearerFormat="at+jwt", scheme_name="accessToken")


def tokens_of(request: Request) -> Tokens:
    """Return the service's tokens."""
    return cast("Tokens", request.app.state.tokens)


def secrets_of(request: Request) -> Secrets:
    """Return the service's derived keys."""
    return cast("Secrets", request.app.state.secrets)


def cursors_of(request: Request) -> Cursors:
    """Return the signer of cursors."""
    return cast("Cursors", request.app.state.cursors)


def require(permission: Permission) -> Callable[..., Awaitable[Caller]]:
    """Return the dependency that lets in whoever holds `permission` somewhere.

    401 without a valid token, 403 `insufficient_role` when no grant carries the permission.
    """

    async def enter(
        request: Request,
        session: Session,
        _scheme: Annotated[object, Depends(_bearer)] = None,
    ) -> Caller:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated
        principal_id, session_id = await tokens_of(request).verify(token.strip(), session)
        request.state.session_id = session_id
        caller = await callers.load(
            session,
            principal_id,
            clock.today(),
            secrets_of(request),
            cursors_of(request),
            session_id,
        )
        await callers.enter(session, caller, permission)
        return caller

    enter.permission = permission  # type: ignore[attr-defined]
    return enter


SignedIn = Annotated[Caller, Depends(require(Permission.open))]
AggregateReader = Annotated[Caller, Depends(require(Permission.aggregates_read))]
BatchWriter = Annotated[Caller, Depends(require(Permission.batch_write))]
CatalogueWriter = Annotated[Caller, Depends(require(Permission.catalogue_extend))]
EventReader = Annotated[Caller, Depends(require(Permission.events_read))]
EventWriter = Annotated[Caller, Depends(require(Permission.events_write))]
HouseholdReader = Annotated[Caller, Depends(require(Permission.households_read))]
HouseholdWriter = Annotated[Caller, Depends(require(Permission.households_write))]
IndicatorWriter = Annotated[Caller, Depends(require(Permission.indicators_write))]
MemberReader = Annotated[Caller, Depends(require(Permission.members_read))]
MemberWriter = Annotated[Caller, Depends(require(Permission.members_write))]
PrincipalWriter = Annotated[Caller, Depends(require(Permission.principals_write))]
TeamReader = Annotated[Caller, Depends(require(Permission.teams_read))]
TeamWriter = Annotated[Caller, Depends(require(Permission.teams_write))]
TeamLinkWriter = Annotated[Caller, Depends(require(Permission.team_link_write))]
VillageWriter = Annotated[Caller, Depends(require(Permission.villages_write))]
