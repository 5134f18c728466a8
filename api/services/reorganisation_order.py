"""What stands between a reorganisation and others: the same document, later ones."""

from collections.abc import Collection, Sequence
from typing import Any, cast

from sqlalchemy import ARRAY, Integer, literal
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer
from sqlmodel import col, select

from api.errors import Conflict, FieldError
from api.models.reorganisations import Reorganisation, ReorganisationCreate
from api.services.tree_work import TreeWork

WITHOUT_UNDO = defer(cast("Any", Reorganisation.undo))
"""What only a revert needs, and may be large."""


async def check_document(session: AsyncSession, given: ReorganisationCreate) -> None:
    """Refuse a document that was applied already, naming when."""
    document, table = given.document, Reorganisation
    earlier = await session.scalar(
        select(col(table.id)).where(
            col(table.document_number) == document.number,
            col(table.document_issued_on) == document.issued_on,
            col(table.document_issuer) == document.issuer,
            col(table.reverted_at).is_(None),
        )
    )
    if earlier:
        fault = FieldError("/document", "document_applied", {"reorganisation_id": str(earlier)})
        raise Conflict(fault)


async def check_later(work: TreeWork) -> None:
    """Refuse to change a unit beneath a later reorganisation."""
    later = await find_later(
        work.session, sorted(work.before), col(Reorganisation.effective_on) > work.day
    )
    if later:
        raise Conflict(*(later_fault("/effective_on", row) for row in later))


async def find_later(
    session: AsyncSession, touched: Collection[int], condition: Any
) -> Sequence[Reorganisation]:
    """Return standing reorganisations of some of these units."""
    table = Reorganisation
    same = col(table.touched).op("&&")(literal(list(touched), ARRAY(Integer)))
    statement = select(table).where(same, condition, col(table.reverted_at).is_(None))
    found = await session.scalars(
        statement.options(WITHOUT_UNDO).order_by(col(table.number)).limit(20)
    )
    return found.all()


def later_fault(pointer: str, row: Reorganisation) -> FieldError:
    """Name a later reorganisation."""
    return FieldError(
        pointer,
        "later_reorganisation",
        {
            "reorganisation_id": str(row.id),
            "document": row.document_number,
            "effective_on": row.effective_on.isoformat(),
        },
    )
