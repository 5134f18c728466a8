"""/v1/data-subject-requests: what people ask about their own data, for the officer who answers."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from api.auth.dependencies import Session, SubjectWriter
from api.models.data_subject_requests import (
    DataSubjectRequestCreate,
    DataSubjectRequestFulfil,
    DataSubjectRequestPage,
    DataSubjectRequestQuery,
    DataSubjectRequestRead,
    SubjectExport,
)
from api.routers.answers import created, paged, tagged
from api.routers.idempotency import Keyed
from api.services import data_subject_requests, subject_export

router = APIRouter(prefix="/v1/data-subject-requests", tags=["identity"], route_class=Keyed)


@router.get("", operation_id="list_data_subject_requests")
async def list_data_subject_requests(
    session: Session,
    caller: SubjectWriter,
    query: Annotated[DataSubjectRequestQuery, Query()],
    request: Request,
    response: Response,
) -> DataSubjectRequestPage:
    """List the requests of the caller's own subtree, the most urgent first."""
    page = await data_subject_requests.list_requests(session, caller, query)
    return paged(request, response, page)


@router.post("", operation_id="create_data_subject_request", status_code=201)
async def create_data_subject_request(
    session: Session,
    caller: SubjectWriter,
    body: DataSubjectRequestCreate,
    request: Request,
    response: Response,
) -> DataSubjectRequestRead:
    """Open a request of a person within the caller's own subtree; `due_at` is the law's."""
    outcome = await data_subject_requests.create_request(session, caller, body)
    return created(request, response, outcome)


@router.get("/{data_subject_request_id}", operation_id="get_data_subject_request")
async def get_data_subject_request(
    session: Session, caller: SubjectWriter, data_subject_request_id: UUID, response: Response
) -> DataSubjectRequestRead:
    """Return a request."""
    found = await data_subject_requests.get_request(session, caller, data_subject_request_id)
    return tagged(response, found)


@router.get("/{data_subject_request_id}/export", operation_id="export_data_subject")
async def export_data_subject(
    session: Session, caller: SubjectWriter, data_subject_request_id: UUID
) -> SubjectExport:
    """Return everything held on the person, while the request is open; 409 once fulfilled."""
    return await subject_export.export(session, caller, data_subject_request_id)


@router.post("/{data_subject_request_id}:fulfil", operation_id="fulfil_data_subject_request")
async def fulfil_data_subject_request(
    session: Session,
    caller: SubjectWriter,
    data_subject_request_id: UUID,
    body: DataSubjectRequestFulfil,
    response: Response,
) -> DataSubjectRequestRead:
    """Do what the person asks for, once: erase, withdraw or restrict; or close a given access.

    Again: the same answer, and nothing more is done.
    """
    done = await data_subject_requests.fulfil(session, caller, data_subject_request_id, body)
    return tagged(response, done)
