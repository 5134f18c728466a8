"""/v1/audit-entries: who did, or saw, what."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from api.auth.dependencies import AuditReader, Session
from api.models.audit_entries import AuditEntryPage, AuditEntryQuery, AuditEntryRead
from api.routers.answers import paged
from api.routers.routes import Strict
from api.services import audit

router = APIRouter(prefix="/v1/audit-entries", tags=["audit"], route_class=Strict)


@router.get("", operation_id="list_audit_entries")
async def list_audit_entries(
    session: Session,
    caller: AuditReader,
    query: Annotated[AuditEntryQuery, Query()],
    request: Request,
    response: Response,
) -> AuditEntryPage:
    """List the writes, and the reads of personal data, in scope; the newest first."""
    return paged(request, response, await audit.list_entries(session, caller, query))


@router.get("/{entry_id}", operation_id="get_audit_entry")
async def get_audit_entry(session: Session, caller: AuditReader, entry_id: UUID) -> AuditEntryRead:
    """Return an entry."""
    return await audit.get_entry(session, caller, entry_id)
