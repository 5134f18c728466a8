"""The versions of an event: what it was, since when, by whom, and why."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.caller import Caller
from api.driver import connection_of
from api.models.event_versions import (
    SupportEventVersion,
    SupportEventVersionPage,
    SupportEventVersionQuery,
    SupportEventVersionRead,
)
from api.models.support_events import EventAction, SupportEvent
from api.pagination import Order, paginate
from api.services.audit import record_read
from api.services.event_judgement import event_places
from api.services.masking import PERSONAL, mask, sees_people
from api.services.support_events import RESOURCE, find_event, presentable

_NOW: Any = SupportEvent.__table__.c  # type: ignore[attr-defined]
_THEN: Any = SupportEventVersion.__table__.c  # type: ignore[attr-defined]


async def list_versions(
    session: AsyncSession, caller: Caller, event_id: UUID, query: SupportEventVersionQuery
) -> SupportEventVersionPage:
    """Return a page of an event's versions, the newest first, for whoever reads the event.

    A version is in clear where the event is, and it was in a place whose people the caller reads.
    """
    event = (await find_event(session, caller, event_id)).model_dump()
    clear = sees_people(caller, event["created_by"], *event_places(event))

    def read(rows: Sequence[Row[Any]]) -> list[SupportEventVersionRead]:
        return [
            _read(caller, dict(zip(_NOW.keys(), row, strict=False)), clear=clear) for row in rows
        ]

    every = union_all(
        select(*_NOW).where(_NOW.id == event_id),
        select(*(_THEN[column.name] for column in _NOW)).where(_THEN.id == event_id),
    ).subquery()
    order = Order(every.c.version, every.c.id, descending=True)
    page = await paginate(session, caller.cursors, query, select(every), order, read)
    database = await connection_of(session)
    telling = [
        (item, item.unit_id)
        for item in page.items
        if any(getattr(item, name) is not None for name in PERSONAL[RESOURCE])
    ]
    await record_read(database, caller, RESOURCE, telling[:1])
    return SupportEventVersionPage(**dict(page))


def _read(caller: Caller, row: dict[str, Any], *, clear: bool) -> SupportEventVersionRead:
    values = presentable(row) | {
        "at": row["updated_at"],
        "actor_id": row["changed_by"] if row["action"] else row["created_by"],
        "action": row["action"] or EventAction.create,
    }
    clear = clear and sees_people(caller, row["created_by"], *event_places(row))
    return SupportEventVersionRead(**mask(values, () if clear else PERSONAL[RESOURCE]))
