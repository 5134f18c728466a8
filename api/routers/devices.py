"""/v1/devices: phones that act as a member of a team."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from api.auth.dependencies import DeviceWriter, Session
from api.models.devices import DeviceCreate, DeviceEnrolment, DevicePage, DeviceQuery, DeviceRead
from api.routers.answers import NO_STORE, IfMatch, created, paged, tagged
from api.routers.routes import Strict
from api.services import devices

router = APIRouter(prefix="/v1/devices", tags=["identity"], route_class=Strict)


@router.get("", operation_id="list_devices")
async def list_devices(
    session: Session,
    caller: DeviceWriter,
    query: Annotated[DeviceQuery, Query()],
    request: Request,
    response: Response,
) -> DevicePage:
    """List the devices of members in scope, those among them that wait for their enrolment."""
    return paged(request, response, await devices.list_devices(session, caller, query))


@router.post("", operation_id="create_device", status_code=201)
async def create_device(
    session: Session,
    caller: DeviceWriter,
    body: DeviceCreate,
    request: Request,
    response: Response,
) -> DeviceEnrolment:
    """Make a device for a member; `enrolment_code` is shown this once, and holds 15 minutes.

    The device sends it to `POST /v1/sessions` with a name of its own, once. It then acts as the
    member in those of the member's teams that are in the caller's scope now.
    """
    response.headers.update(NO_STORE)
    device = await devices.create_device(session, caller, body)
    return created(request, response, (device, True))


@router.get("/{device_id}", operation_id="get_device")
async def get_device(
    session: Session, caller: DeviceWriter, device_id: UUID, response: Response
) -> DeviceRead:
    """Return a device of a member in scope."""
    return tagged(response, await devices.get_device(session, caller, device_id))


@router.delete("/{device_id}", operation_id="delete_device", status_code=204)
async def delete_device(
    session: Session, caller: DeviceWriter, device_id: UUID, if_match: IfMatch
) -> None:
    """End a device: its tokens are refused from the next request."""
    await devices.end_device(session, caller, device_id, if_match)
