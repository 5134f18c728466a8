"""/health: whether the process lives, and whether it can serve."""

from fastapi import APIRouter, Request

from api.db import is_ready
from api.errors import Unavailable
from api.models.health import Health
from api.routers.routes import Strict

router = APIRouter(prefix="/health", tags=["health"], route_class=Strict)


@router.get("/live", operation_id="get_liveness")
async def get_liveness() -> Health:
    """Answer while the process runs."""
    return Health(status="ok")


@router.get("/ready", operation_id="get_readiness")
async def get_readiness(request: Request) -> Health:
    """Answer 200 once the database answers and is migrated, else 503."""
    if not await is_ready(request.app.state.engine):
        raise Unavailable
    return Health(status="ok")
