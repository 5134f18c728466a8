"""/v1/batch: what a phone or a portal gathered, sent at once."""

from fastapi import APIRouter, Request

from api.auth.dependencies import HotBatchWriter, hot_of
from api.models.batch import BatchCreate, BatchRead
from api.problems import language_of
from api.routers.routes import Strict
from api.services import batch

router = APIRouter(prefix="/v1/batch", tags=["batch"], route_class=Strict)


@router.post("", operation_id="run_batch", status_code=207)
async def run_batch(caller: HotBatchWriter, body: BatchCreate, request: Request) -> BatchRead:
    """Write up to 500 items; each is answered on its own. Sending again changes nothing."""
    language = language_of(request.headers.get("accept-language", ""))
    engine, hot = request.app.state.engine, hot_of(request)
    return await batch.run_batch(engine, hot, caller, body, language, request.state.request_id)
