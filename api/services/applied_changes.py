"""Changes that a batch applied: sent again, each is recognised by its row, its base and itself."""

from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.caller import Caller
from api.models.batch import BatchItem
from api.models.types import Input

_KNOWN = text("select true from applied_change where row_id = :row and change = :change")
_KEEP = text("""
    insert into applied_change (row_id, change) values (:row, :change) on conflict do nothing
""")
_TIDY = text("delete from applied_change where applied_at < now() - interval '90 days'")
"""As long as a phone may be away: its session, and what sync tells it, last no longer."""


def mark_of(caller: Caller, resource: str, item: BatchItem, body: Input | None) -> dict[str, Any]:
    """Return what a change is recognised by: the row's id, and a keyed hash of base and change.

    Whoever sends it: a phone that was enrolled anew has a new name, and the same changes to send.
    """
    change = body and body.model_dump(mode="json", exclude_unset=True)
    content = [resource, item.op, item.if_match, change]
    return {"row": item.id, "change": caller.secrets.hash_content(content)}


async def is_known(session: AsyncSession, mark: dict[str, Any]) -> bool:
    """Tell whether the change was applied before; ask with the row locked."""
    return bool(await session.scalar(_KNOWN, mark))


async def keep(session: AsyncSession, mark: dict[str, Any]) -> None:
    """Remember a change that was applied."""
    await session.execute(_KEEP, mark)


async def tidy(session: AsyncSession) -> None:
    """Forget changes that nobody sends again."""
    await session.execute(_TIDY)
