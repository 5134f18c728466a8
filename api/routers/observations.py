"""/v1/observations: indicators by unit, period and one more dimension, as JSON or CSV."""

import csv
from collections.abc import AsyncIterator
from io import StringIO
from typing import Annotated, Any, Final, cast

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event

from api.auth.dependencies import AggregateWatcher, HotAggregateReader, Session
from api.models.observations import (
    Observation,
    ObservationAnswer,
    ObservationFormat,
    ObservationQuery,
    ObservationVersion,
)
from api.routers.answers import PRIVATE, known_tags, preferred
from api.routers.routes import Strict
from api.services.observation_answers import Answers, Seen
from api.services.observation_streams import Streams

router = APIRouter(prefix="/v1/observations", tags=["observations"], route_class=Strict)

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


async def _answers(request: Request) -> Answers:
    return cast("Answers", request.app.state.answers)


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
    caller: HotAggregateReader,
    answers: Annotated[Answers, Depends(_answers)],
    query: Annotated[ObservationQuery, Query()],
    request: Request,
) -> Response:
    """Give indicators for a unit, or for the units of a level in it, period by period.

    `text/csv` by `Accept` or `format=csv`. 304 when `If-None-Match` still holds.
    """
    better = preferred(request, "application/json", "text/csv")
    form = query.format or ObservationFormat(better.partition("/")[2])
    asked = query.model_copy(update={"format": form})
    seen, observed = await answers.answer(session, caller, asked, known_tags(request))
    request.state.answered = seen.key
    headers = {"ETag": seen.tag, **PRIVATE}
    if observed is None:
        return Response(status_code=304, headers=headers)
    if form is ObservationFormat.csv:
        return Response(_csv(observed.answer.items), headers=headers, media_type="text/csv")
    return Response(observed.written(), headers=headers, media_type="application/json")


async def _place(request: Request, renewed: AggregateWatcher) -> AsyncIterator[Streams]:
    """Keep a place among the streams until the answer has ended, however it ends."""
    streams = cast("Streams", request.app.state.streams)
    with streams.place(await renewed()):
        yield streams


@router.get(
    "/stream",
    operation_id="stream_observations",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Events `data_version`, with an ObservationVersion as data",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    },
)
async def stream_observations(
    renewed: AggregateWatcher,
    streams: Annotated[Streams, Depends(_place)],
    answers: Annotated[Answers, Depends(_answers)],
    query: Annotated[ObservationQuery, Query()],
    last_event_id: Annotated[
        str | None, Header(max_length=64, description="The data version that is known already")
    ] = None,
) -> Response:
    """Tell when the data version of a query moves (Server-Sent Events): its `id` and its data.

    The present one comes first, unless it is `Last-Event-ID`. Ends with the token, the right or the
    service: connect anew. 429 beyond 20 streams of one principal in a worker.
    """
    asked = query.model_copy(update={"format": ObservationFormat.json})
    await answers.current(await renewed(), asked)  # what is refused is refused before it begins
    events = streams.watch(answers, renewed, asked, last_event_id)
    return EventSourceResponse(_written(events), headers={"X-Accel-Buffering": "no"})


async def _written(events: AsyncIterator[Seen | None]) -> AsyncIterator[bytes]:
    async for seen in events:
        if seen is None:
            yield KEEPALIVE_COMMENT
            continue
        told = ObservationVersion(data_version=seen.version, computed_at=seen.computed_at)
        yield format_sse_event(
            event="data_version", data_str=told.model_dump_json(), id=seen.version
        )


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
