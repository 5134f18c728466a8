"""How one item of a batch is written: created, merged with what others changed, put or deleted.

All of it under one savepoint, and with the row locked before anything is compared.
"""

from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from api.auth.caller import Caller
from api.auth.scope import visible
from api.errors import NotFound, PreconditionFailed
from api.models.batch import BatchItem, BatchOutcome, Operation
from api.models.types import Creation, Input, Output
from api.services import applied_changes, upserts
from api.services.batch_items import version_of
from api.services.batch_nouns import Noun
from api.services.merging import changes_since, conflicts_of
from api.services.writing import ANY_VERSION


class Written(NamedTuple):
    """What became of an item, the row's version now, and the row that an upsert found or made."""

    outcome: BatchOutcome
    version: int | None
    row_id: UUID | None = None


def made(version: int, *, is_new: bool) -> Written:
    """Tell of a create."""
    return Written(BatchOutcome.created if is_new else BatchOutcome.unchanged, version)


def _changed(version: int, before: int | None) -> Written:
    same = version == before
    return Written(BatchOutcome.unchanged if same else BatchOutcome.updated, version)


async def write(
    session: AsyncSession, caller: Caller, noun: Noun, item: BatchItem, body: Input | None
) -> Written:
    """Do one item."""
    if item.external_id is not None and body is not None:
        return await _put(session, caller, noun, item, body)
    if isinstance(body, Creation):
        row, is_new = await noun.create(session, caller, body)
        return made(row.version, is_new=is_new)
    base = version_of(item.if_match)
    mark = applied_changes.mark_of(caller, noun.resource, item, body)
    if item.op is Operation.delete or body is None:
        done = await _delete(session, caller, noun, mark, base, body)
    elif base == ANY_VERSION:
        before = await session.scalar(_version(caller, noun, mark["row"]).with_for_update())
        row = await noun.update(session, caller, mark["row"], base, body)
        return _changed(row.version, before)
    else:
        done = await _update(session, caller, noun, mark, base, body)
    if base != ANY_VERSION:  # which is no base to be recognised by
        await applied_changes.keep(session, mark)
    return done


async def _put(
    session: AsyncSession, caller: Caller, noun: Noun, item: BatchItem, body: Input
) -> Written:
    """Create the row of an external id, or give it what was sent, as `PUT` does."""
    name = item.external_id.system, item.external_id.id  # type: ignore[union-attr]  # upserts have one
    row, before = await upserts.write(session, caller, noun.upsert, name, body)
    done = made(row.version, is_new=True) if before is None else _changed(row.version, before)
    return done._replace(row_id=row.id)


async def _update(
    session: AsyncSession,
    caller: Caller,
    noun: Noun,
    mark: dict[str, Any],
    base: int,
    change: Input,
) -> Written:
    """Change a row; a stale change is merged with those made since, where none is of its fields.

    One that was applied before is recognised, whatever became of the row since.
    """
    row_id = mark["row"]
    try:
        row = await noun.update(session, caller, row_id, base, change)
    except PreconditionFailed as stale:
        present: Output = stale.members["current"]
        if await applied_changes.is_known(session, mark):
            return Written(BatchOutcome.unchanged, present.version)
        since = await changes_since(session, noun.resource, present, base)
        if conflicts := conflicts_of(change, present, since):
            stale.members["conflicts"] = conflicts
            raise
        row = await noun.update(session, caller, row_id, present.version, change)
        return _changed(row.version, present.version)
    except NotFound:
        gone = _version(caller, noun, row_id).where(noun.gone)
        if await session.scalar(gone) and await applied_changes.is_known(session, mark):
            return Written(BatchOutcome.unchanged, None)
        raise
    return _changed(row.version, base)


async def _delete(
    session: AsyncSession,
    caller: Caller,
    noun: Noun,
    mark: dict[str, Any],
    base: int,
    body: Input | None,
) -> Written:
    """Delete (an event: void) one row; one that is gone already stays so."""
    if await session.scalar(_version(caller, noun, mark["row"]).where(noun.gone)):
        return Written(BatchOutcome.unchanged, None)
    why = () if body is None else (body,)
    try:
        voided = await noun.delete(session, caller, mark["row"], base, *why)
    except PreconditionFailed as stale:
        if await applied_changes.is_known(session, mark):
            return Written(BatchOutcome.unchanged, stale.members["current"].version)
        raise
    return Written(BatchOutcome.deleted, None if voided is None else voided.version)


def _version(caller: Caller, noun: Noun, row_id: UUID) -> Any:
    """Select the version of a row, hidden or not."""
    return (
        visible(noun.table, caller, noun.reading, hidden=True)
        .with_only_columns(col(noun.table.version))
        .where(col(noun.table.id) == row_id)
    )
