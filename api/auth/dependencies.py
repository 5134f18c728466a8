"""The parameter types of routes: the session, the caller, the permission that a route asks for."""

from collections.abc import AsyncIterator
from typing import Annotated, cast

from fastapi import Depends, Request
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.caller import Caller, Renewed, enter
from api.auth.duties import ANY_DUTY, Duty, check_duties
from api.auth.issuers import Issuers
from api.auth.permissions import CHANGES_RIGHTS, Permission
from api.auth.secrets import Secrets
from api.auth.tokens import Tokens
from api.db import transaction
from api.driver import Hot
from api.errors import PreconditionFailed, Refusal, Unauthenticated
from api.pagination import Cursors


async def _session(request: Request) -> AsyncIterator[AsyncSession]:
    """Give one transaction to a request: it commits before the answer leaves.

    A request that only reads sees one moment: its totals, pages and shares agree.
    """
    reads = request.method == "GET"
    try:
        async with transaction(request.app.state.engine, snapshot=reads) as session:
            session.info["request_id"] = request.state.request_id
            yield session
    except PreconditionFailed as stale:  # what it shows is recorded, though nothing else is kept
        if stale.record:
            await stale.record(request.app.state.hot)
        raise
    if not reads and getattr(request.state, "changes_rights", False):
        request.app.state.callers.forget()  # this worker need not hear of it first


Session = Annotated[AsyncSession, Depends(_session, scope="function")]


def hot_of(request: Request) -> Hot:
    """Return what runs hot statements."""
    return cast("Hot", request.app.state.hot)


def tokens_of(request: Request) -> Tokens:
    """Return the service's tokens."""
    return cast("Tokens", request.app.state.tokens)


def issuers_of(request: Request) -> Issuers:
    """Return the other issuers whose people may sign in."""
    return cast("Issuers", request.app.state.issuers)


def secrets_of(request: Request) -> Secrets:
    """Return the service's derived keys."""
    return cast("Secrets", request.app.state.secrets)


def cursors_of(request: Request) -> Cursors:
    """Return the signer of cursors."""
    return cast("Cursors", request.app.state.cursors)


async def _caller(
    request: Request, permission: Permission, despite: frozenset[Duty] = frozenset()
) -> Caller:
    """Return whoever sends the request, when some grant of theirs carries the permission.

    A refusal is never given from memory: a right may have been granted a moment ago.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated
    app = request.app.state
    verified = app.tokens.remembered(token)
    if verified is None:
        async with transaction(app.engine) as session:
            verified = await app.tokens.verify(token, session)
    caller: Caller = await app.callers.find(verified.principal_id, verified.session_id)
    try:
        check_duties(caller, permission, despite, totp_required=app.admin_totp_required)
    except Refusal:
        caller = await app.callers.find(verified.principal_id, verified.session_id, anew=True)
        check_duties(caller, permission, despite, totp_required=app.admin_totp_required)
    return caller.asking(permission, request.state.request_id)


class Permit(SecurityBase):
    """Lets in whoever holds a permission somewhere; the routes' security scheme in the document.

    401 without a valid token, 403 `insufficient_role` when no grant carries the permission.
    Whoever has something to do first is refused, but for the duties in `despite`.
    """

    scheme_name = "accessToken"
    model = HTTPBearer(bearerFormat="at+jwt")

    def __init__(self, permission: Permission, despite: frozenset[Duty] = frozenset()) -> None:
        """Ask for one permission."""
        self.permission, self.despite = permission, despite


class Require(Permit):
    """Lets somebody into the transaction of their request."""

    async def __call__(self, request: Request, session: Session) -> Caller:
        """Return who calls; the transaction knows them."""
        caller = await _caller(request, self.permission, self.despite)
        request.state.changes_rights = self.permission in CHANGES_RIGHTS
        await enter(session, caller)
        return caller


class RequireHot(Permit):
    """Lets somebody in where there is no transaction, or none before it must be.

    Hot paths bring the scope with each statement; others `enter` their transaction themselves.
    """

    async def __call__(self, request: Request) -> Caller:
        """Return who calls."""
        return await _caller(request, self.permission, self.despite)


class RequireLasting(Permit):
    """Lets somebody watch long after their request: whether they still may is asked anew.

    Takes no transaction.
    """

    async def __call__(self, request: Request) -> Renewed:
        """Return what tells who calls, now and later."""

        async def renewed() -> Caller:
            return await _caller(request, self.permission)

        await renewed()
        return renewed


SignedIn = Annotated[Caller, Depends(Require(Permission.open))]
Oneself = Annotated[Caller, Depends(Require(Permission.open, ANY_DUTY))]
"""Whoever is signed in, also while there is something to do first."""
TotpOwner = Annotated[Caller, Depends(Require(Permission.open, frozenset({Duty.totp})))]
Somebody = Annotated[Caller, Depends(RequireHot(Permission.open))]
"""Whoever is signed in, where something slow comes before the transaction."""
ActivityReader = Annotated[Caller, Depends(Require(Permission.activities_read))]
ActivityWriter = Annotated[Caller, Depends(Require(Permission.activities_write))]
AggregateReader = Annotated[Caller, Depends(Require(Permission.aggregates_read))]
AggregateWatcher = Annotated[Renewed, Depends(RequireLasting(Permission.aggregates_read))]
AuditReader = Annotated[Caller, Depends(Require(Permission.audit_read))]
CampaignReader = Annotated[Caller, Depends(Require(Permission.campaigns_read))]
CampaignWriter = Annotated[Caller, Depends(Require(Permission.campaigns_write))]
CatalogueWriter = Annotated[Caller, Depends(Require(Permission.catalogue_extend))]
CommendationReader = Annotated[Caller, Depends(Require(Permission.commendations_read))]
CommendationWriter = Annotated[Caller, Depends(Require(Permission.commendations_write))]
DeviceWriter = Annotated[Caller, Depends(Require(Permission.devices_write))]
EventReader = Annotated[Caller, Depends(Require(Permission.events_read))]
EventWriter = Annotated[Caller, Depends(Require(Permission.events_write))]
EventReopener = Annotated[Caller, Depends(Require(Permission.events_reopen))]
EventVerifier = Annotated[Caller, Depends(Require(Permission.events_verify))]
EventVoider = Annotated[Caller, Depends(Require(Permission.events_void))]
GlassBreaker = Annotated[Caller, Depends(Require(Permission.glass_break))]
HotActivityReader = Annotated[Caller, Depends(RequireHot(Permission.activities_read))]
HotAggregateReader = Annotated[Caller, Depends(RequireHot(Permission.aggregates_read))]
HotBatchWriter = Annotated[Caller, Depends(RequireHot(Permission.batch_write))]
HotEventReader = Annotated[Caller, Depends(RequireHot(Permission.events_read))]
HotEventWriter = Annotated[Caller, Depends(RequireHot(Permission.events_write))]
HotHouseholdReader = Annotated[Caller, Depends(RequireHot(Permission.households_read))]
HotMemberReader = Annotated[Caller, Depends(RequireHot(Permission.members_read))]
HotTargetReader = Annotated[Caller, Depends(RequireHot(Permission.targets_read))]
HotTeamReader = Annotated[Caller, Depends(RequireHot(Permission.teams_read))]
HouseholdReader = Annotated[Caller, Depends(Require(Permission.households_read))]
HouseholdWriter = Annotated[Caller, Depends(Require(Permission.households_write))]
IndicatorWriter = Annotated[Caller, Depends(Require(Permission.indicators_write))]
MemberReader = Annotated[Caller, Depends(Require(Permission.members_read))]
MemberWriter = Annotated[Caller, Depends(Require(Permission.members_write))]
PeriodCloser = Annotated[Caller, Depends(Require(Permission.periods_close))]
PrincipalWriter = Annotated[Caller, Depends(Require(Permission.principals_write))]
Reorganiser = Annotated[Caller, Depends(Require(Permission.reorganise_villages))]
StatisticReader = Annotated[Caller, Depends(Require(Permission.statistics_read))]
StatisticWriter = Annotated[Caller, Depends(Require(Permission.statistics_write))]
SubjectWriter = Annotated[Caller, Depends(Require(Permission.subjects_write))]
TargetAllocator = Annotated[Caller, Depends(Require(Permission.targets_allocate))]
TargetReader = Annotated[Caller, Depends(Require(Permission.targets_read))]
TargetWriter = Annotated[Caller, Depends(Require(Permission.targets_write))]
TeamReader = Annotated[Caller, Depends(Require(Permission.teams_read))]
TeamWriter = Annotated[Caller, Depends(Require(Permission.teams_write))]
TeamLinkWriter = Annotated[Caller, Depends(Require(Permission.team_link_write))]
VillageWriter = Annotated[Caller, Depends(Require(Permission.villages_write))]
