"""/v1/service-types."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from api.auth.dependencies import CatalogueWriter, Session, SignedIn
from api.models.service_types import (
    ServiceTypeCreate,
    ServiceTypePage,
    ServiceTypeQuery,
    ServiceTypeRead,
    ServiceTypeUpdate,
)
from api.routers.answers import IfMatch, created, paged, tagged
from api.routers.idempotency import Keyed
from api.services import service_types

router = APIRouter(prefix="/v1/service-types", tags=["service-types"], route_class=Keyed)


@router.get("", operation_id="list_service_types")
async def list_service_types(
    session: Session,
    caller: SignedIn,
    query: Annotated[ServiceTypeQuery, Query()],
    request: Request,
    response: Response,
) -> ServiceTypePage:
    """List the services in scope."""
    return paged(request, response, await service_types.list_service_types(session, caller, query))


@router.post("", operation_id="create_service_type", status_code=201)
async def create_service_type(
    session: Session,
    caller: CatalogueWriter,
    body: ServiceTypeCreate,
    request: Request,
    response: Response,
) -> ServiceTypeRead:
    """Add a service: a province a child of a code, the nation any."""
    return created(
        request, response, await service_types.create_service_type(session, caller, body)
    )


@router.get("/{service_type_id}", operation_id="get_service_type")
async def get_service_type(
    session: Session, caller: SignedIn, service_type_id: UUID, response: Response
) -> ServiceTypeRead:
    """Return a service."""
    return tagged(response, await service_types.get_service_type(session, caller, service_type_id))


@router.patch("/{service_type_id}", operation_id="update_service_type")
async def update_service_type(
    session: Session,
    caller: CatalogueWriter,
    service_type_id: UUID,
    if_match: IfMatch,
    body: ServiceTypeUpdate,
    response: Response,
) -> ServiceTypeRead:
    """Change a service. 412 when `If-Match` is not the current version."""
    service_type = await service_types.update_service_type(
        session, caller, service_type_id, if_match, body
    )
    return tagged(response, service_type)


@router.delete("/{service_type_id}", operation_id="delete_service_type", status_code=204)
async def delete_service_type(
    session: Session, caller: CatalogueWriter, service_type_id: UUID, if_match: IfMatch
) -> None:
    """Hide a service that was entered by mistake."""
    await service_types.delete_service_type(session, caller, service_type_id, if_match)
