"""/v1/observations: indicators by unit, period and one more dimension, as JSON or CSV."""

import csv
from io import StringIO
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response

from api.auth.dependencies import AggregateReader, Session
from api.models.observations import (
    Observation,
    ObservationAnswer,
    ObservationFormat,
    ObservationQuery,
)
from api.routers.answers import holds, preferred
from api.services import observations

router = APIRouter(prefix="/observations", tags=["observations"])

COLUMNS: Final = {
    "INDICATOR": "indicator",
    "TIME_PERIOD": "period",
    "REF_AREA": "unit_id",
    "REF_AREA_NAME": "unit_name",
    "REF_AREA_CODE": "unit_code",
    "SERVICE_TYPE": "service_type",
    "CHANNEL": "channel",
    "OUTCOME": "outcome",
    "KIND": "kind",
    "OBS_VALUE": "value",
    "NUMERATOR": "numerator",
    "DENOMINATOR": "denominator",
    "UNIT_MEASURE": "unit_of_count",
    "OBS_STATUS": "status",
}
"""SDMX-CSV's names -> the fields of an item."""


@router.get(
    "",
    operation_id="list_observations",
    response_model=ObservationAnswer,
    responses={
        200: {"content": {"text/csv": {"schema": {"type": "string"}}}},
        304: {"description": "Nothing has changed since the answer with that ETag"},
    },
)
async def list_observations(
    session: Session,
    caller: AggregateReader,
    query: Annotated[ObservationQuery, Query()],
    request: Request,
) -> Response:
    """Give indicators for a unit, or for the units of a level in it, period by period.

    `text/csv` by `Accept` or `format=csv`. 304 when `If-None-Match` still holds.
    """
    better = preferred(request, "application/json", "text/csv")
    form = query.format or ObservationFormat(better.partition("/")[2])
    answer = await observations.observe(session, caller, query)
    tag = observations.entity_tag(caller, query.model_copy(update={"format": form}), answer)
    headers = {
        "ETag": tag,
        "Cache-Control": "private, no-cache",
        "Vary": "Accept, Accept-Language",
    }
    if holds(request, tag):
        return Response(status_code=304, headers=headers)
    if form is ObservationFormat.csv:
        return Response(_csv(answer.items), headers=headers, media_type="text/csv")
    return Response(answer.model_dump_json(), headers=headers, media_type="application/json")


def _csv(items: list[Observation]) -> str:
    file = StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    writer.writerows([_cell(getattr(item, name)) for name in COLUMNS.values()] for item in items)
    return file.getvalue()


def _cell(value: Any) -> Any:
    """Keep a spreadsheet from taking a text for a formula (OWASP, CSV injection)."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value
