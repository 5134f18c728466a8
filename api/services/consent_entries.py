"""The ledger of consent: written by the database with every change of a household's legal basis."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.auth.scope import visible
from api.errors import NotFound
from api.models.consent_entries import (
    ConsentEntry,
    ConsentEntryPage,
    ConsentEntryQuery,
    ConsentEntryRead,
)
from api.models.households import Household
from api.pagination import Order, paginate
from api.services.masking import mask, sees_people

PERSONAL = ("method",)


async def list_entries(
    session: AsyncSession, caller: Caller, household_id: UUID, query: ConsentEntryQuery
) -> ConsentEntryPage:
    """Return every legal basis that the household had, for whoever reads the household."""
    found = visible(Household, caller, Permission.households_read)
    household = await session.scalar(found.where(col(Household.id) == household_id))
    if household is None:
        raise NotFound
    hidden = () if sees_people(caller, household.created_by, (household, None)) else PERSONAL

    def read(rows: Sequence[Row[Any]]) -> list[ConsentEntryRead]:
        return [ConsentEntryRead(**mask(row.ConsentEntry.model_dump(), hidden)) for row in rows]

    statement = select(ConsentEntry).where(col(ConsentEntry.household_id) == household_id)
    order = Order(col(ConsentEntry.recorded_at), col(ConsentEntry.id))
    page = await paginate(session, caller.cursors, query, statement, order, read)
    return ConsentEntryPage(**dict(page))
