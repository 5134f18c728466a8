"""/v1/admin-units: the country's units on any day, and its villages."""

import hashlib
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic_core import to_json

from api.auth.dependencies import Session, SignedIn, VillageWriter
from api.models.admin_units import (
    AdminUnitCreate,
    AdminUnitPage,
    AdminUnitQuery,
    AdminUnitRead,
    AdminUnitUpdate,
    AtQuery,
    Lineage,
)
from api.routers.answers import IfMatch, created, holds, paged, preferred, tagged
from api.routers.idempotency import Keyed
from api.services import admin_units, villages

router = APIRouter(prefix="/v1/admin-units", tags=["admin-units"], route_class=Keyed)


GEOJSON = "application/geo+json"


@router.get(
    "",
    operation_id="list_admin_units",
    response_model=AdminUnitPage,
    responses={
        200: {"content": {GEOJSON: {"schema": {"type": "object"}}}},
        304: {"description": "Nothing has changed since the map with that ETag"},
    },
)
async def list_admin_units(
    session: Session,
    caller: SignedIn,
    query: Annotated[AdminUnitQuery, Query()],
    request: Request,
    response: Response,
) -> AdminUnitPage | Response:
    """List the units that stood on the day `at`; an old name finds its successor.

    `Accept: application/geo+json` gives their points on a map (RFC 7946), without pages.
    """
    response.headers["Vary"] = "Accept, Accept-Language"
    if preferred(request, "application/json", GEOJSON) == GEOJSON:
        return _map(request, await admin_units.list_points(session, query))
    return paged(request, response, await admin_units.list_units(session, caller, query))


def _map(request: Request, units: list[AdminUnitRead]) -> Response:
    """Return a FeatureCollection of points, or 304 when the client has it."""
    features = [
        {
            "type": "Feature",
            "id": unit.id,
            "geometry": {"type": "Point", "coordinates": [unit.lon, unit.lat]},
            "properties": unit.model_dump(exclude={"id", "lat", "lon"}),
        }
        for unit in units
    ]
    body = to_json({"type": "FeatureCollection", "features": features})
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Vary": "Accept, Accept-Language"}
    if holds(request, tag):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=GEOJSON)


@router.post("", operation_id="create_admin_unit", status_code=201)
async def create_admin_unit(
    session: Session,
    caller: VillageWriter,
    body: AdminUnitCreate,
    request: Request,
    response: Response,
) -> AdminUnitRead:
    """Create a village under a commune that stands on its first day."""
    return created(request, response, await villages.create_village(session, caller, body))


@router.get("/{unit_id}", operation_id="get_admin_unit")
async def get_admin_unit(
    session: Session,
    _caller: SignedIn,
    unit_id: UUID,
    query: Annotated[AtQuery, Query()],
    response: Response,
) -> AdminUnitRead:
    """Return a unit as it is on a day, or as it was on its last."""
    return tagged(response, await admin_units.get_unit(session, unit_id, query.at))


@router.get("/{unit_id}/lineage", operation_id="get_admin_unit_lineage")
async def get_admin_unit_lineage(session: Session, _caller: SignedIn, unit_id: UUID) -> Lineage:
    """Return where a unit came from and what became of it."""
    return await admin_units.get_lineage(session, unit_id)


@router.patch("/{unit_id}", operation_id="update_admin_unit")
async def update_admin_unit(
    session: Session,
    caller: VillageWriter,
    unit_id: UUID,
    if_match: IfMatch,
    body: AdminUnitUpdate,
    response: Response,
) -> AdminUnitRead:
    """Rename, locate or close a village. 412 when `If-Match` is not the current version."""
    unit = await villages.update_village(session, caller, unit_id, if_match, body)
    return tagged(response, unit)


@router.delete("/{unit_id}", operation_id="delete_admin_unit", status_code=204)
async def delete_admin_unit(
    session: Session, caller: VillageWriter, unit_id: UUID, if_match: IfMatch
) -> None:
    """Hide a village that was made by mistake; 409 while anything refers to it."""
    await villages.delete_village(session, caller, unit_id, if_match)
