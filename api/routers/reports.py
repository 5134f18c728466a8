"""/v1/reports: a unit's report of a period, as JSON or as a workbook."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from api.auth.dependencies import AggregateReader, Session
from api.models.reports import Report, ReportQuery
from api.problems import language_of
from api.routers.answers import PRIVATE, preferred
from api.routers.routes import Strict
from api.services import reports
from api.services.report_workbook import workbook_of
from api.services.workbooks import XLSX

router = APIRouter(prefix="/v1/reports", tags=["reports"], route_class=Strict)


@router.get(
    "/{unit_id}",
    operation_id="get_report",
    response_model=Report,
    responses={200: {"content": {XLSX: {"schema": {"type": "string", "format": "binary"}}}}},
)
async def get_report(
    session: Session,
    caller: AggregateReader,
    unit_id: UUID,
    query: Annotated[ReportQuery, Query()],
    request: Request,
) -> Response:
    """Return a unit's report of a period, in the tree of its own days (as recorded).

    A workbook in Vietnamese or English by `Accept` and `Accept-Language`.
    """
    report = await reports.get_report(session, caller, unit_id, query)
    if preferred(request, "application/json", XLSX) == XLSX:
        language = language_of(request.headers.get("accept-language", ""))
        name = f'attachment; filename="report-{report.unit.code or "unit"}-{report.first_on}.xlsx"'
        file = workbook_of(report, language)
        return Response(file, headers={"Content-Disposition": name, **PRIVATE}, media_type=XLSX)
    return Response(
        report.model_dump_json(by_alias=True), headers=PRIVATE, media_type="application/json"
    )
