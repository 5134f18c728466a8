"""Lists of events: pages that are written as JSON at once, since a hundred objects cost more."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic_core import to_json

from api.auth.caller import Caller
from api.driver import Connection
from api.models.support_events import SupportEventQuery, SupportEventRead
from api.services.audit import record_rows
from api.services.event_intake import RESOURCE
from api.services.event_list_rows import find_page
from api.services.event_list_sources import find_sources
from api.services.support_events import shown_event

_FIELDS = tuple(SupportEventRead.model_fields)


@dataclass(frozen=True)
class Listed:
    """A page as it goes out (`SupportEventPage`), and the cursor of the next one."""

    body: bytes
    next_cursor: str | None


async def list_support_events(
    database: Connection, caller: Caller, query: SupportEventQuery
) -> Listed:
    """Return a page of the events whose unit or team is in scope, the newest first.

    One statement (one more finds the units, members or external ids of a filter), and one that
    records what was shown of people.
    """
    last = caller.cursors.read(query)
    behind = (datetime.fromisoformat(last[0]), UUID(last[1])) if last else None
    rows: list[Any] = []
    total = 0 if query.include_total else None
    sources = await find_sources(database, caller, query)
    if sources:
        rows, total = await find_page(database, caller, query, sources, behind)
    more, rows = len(rows) > query.limit, rows[: query.limit]
    cursor = None
    if more:
        cursor = caller.cursors.write(query, (rows[-1]["occurred_at"], rows[-1]["id"]))
    items = [_shown(caller, row) for row in rows]
    await record_rows(database, caller, RESOURCE, items, query)
    return Listed(to_json({"items": items, "next_cursor": cursor, "total": total}), cursor)


def _shown(caller: Caller, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event by the names of the contract, in their order."""
    values = shown_event(caller, row)
    return {name: values.get(name) for name in _FIELDS}
