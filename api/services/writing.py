"""How rows are written: created once under a client's id, changed only on the version read."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Protocol

from sqlalchemy import Select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import SQLModel, select

from api import clock, ids
from api.auth.caller import Caller
from api.errors import FieldError, IdConflict, PreconditionFailed, ValidationFailed
from api.models.base import Record
from api.models.types import Creation, Output

ANY_VERSION = -1
"""`If-Match: *`: whatever the version is."""


class Versioned(Protocol):
    """A row that counts its versions."""

    version: int
    updated_at: Any


def check_version(
    current: Output, expected: int, record: Callable[[Any], Awaitable[None]] | None = None
) -> None:
    """Refuse (412) a change that was made on another version than the present one.

    The answer shows the present one: `record` writes that into the audit, where it tells of people.
    """
    if expected not in {ANY_VERSION, current.version}:
        raise PreconditionFailed(current, record)


class Deletable(Versioned, Protocol):
    """What is hidden rather than deleted."""

    deleted_at: Any


def touch(row: Versioned) -> None:
    """Count a new version."""
    row.version += 1
    row.updated_at = clock.now()


def change_row(row: Versioned, values: Mapping[str, Any]) -> None:
    """Change a row and count its version at once: whatever is asked in between writes it as it is.

    (By the version the database tells later what a stale change overlaps.)
    """
    for name, value in values.items():
        setattr(row, name, value)
    touch(row)


def changed_values(
    current: SQLModel, change: SQLModel, required: Collection[str] = ()
) -> dict[str, Any]:
    """Return the fields of a merge patch (RFC 7396) that really change something.

    `current` is the row as the caller may see it: whatever is sent for a masked field counts as a
    change, so that nobody learns by guessing. 422 `not_nullable` where a required field is emptied.
    """
    given = {name: getattr(change, name) for name in change.model_fields_set}
    emptied = sorted(name for name in required if name in given and given[name] is None)
    if emptied:
        raise ValidationFailed(*(FieldError(f"/{name}", "not_nullable") for name in emptied))
    masked = getattr(current, "masked", ())
    values = {}
    for name, value in given.items():
        present = _plain(getattr(current, name, ...))
        merged = _merged(present, value)
        if name in masked or merged != present:
            values[name] = merged
    return values


def _plain(value: Any) -> Any:
    """Return an object's members that hold something; anything else as it is."""
    is_object = isinstance(value, SQLModel)
    return value.model_dump(mode="json", exclude_none=True) if is_object else value


def _merged(present: Any, given: Any) -> Any:
    """Merge one field: an object member by member, of which null removes one; all else whole."""
    if isinstance(given, SQLModel):
        given = given.model_dump(mode="json", exclude_unset=True)
    if not isinstance(given, dict):
        return given
    members = present | given if isinstance(present, dict) else given
    return {name: value for name, value in members.items() if value is not None}


def locked[Row](statement: Select[Row]) -> Select[Row]:
    """Lock the selected rows, and read them as they are once the lock is held."""
    return statement.with_for_update().execution_options(populate_existing=True)


def hide(row: Deletable) -> None:
    """Delete a row for ordinary readers, which counts as a new version; it can be brought back."""
    row.deleted_at = clock.now()
    touch(row)


def bring_back(row: Record) -> None:
    """Undo a deletion, which counts as a new version; a row that stands stays as it is."""
    if row.deleted_at is not None:
        row.deleted_at = None
        touch(row)


def said_by(given: Creation, *besides: str) -> bytes:
    """Return as JSON what a body says besides its id; what is left out is as its default."""
    left_out = {"id", *besides}
    return given.__pydantic_serializer__.to_json(given, exclude=left_out, exclude_defaults=True)


def content_of(caller: Caller, given: Creation) -> bytes:
    """Return the keyed hash of a body as accepted."""
    return caller.secrets.hash_written(said_by(given))


async def made_before[Row: Record](
    session: AsyncSession, caller: Caller, table: type[Row], given: Creation
) -> Row | None:
    """Return the row that the same create, id and content, made before, whatever became of it.

    Asked first of all: what the create referred to may have gone since.
    """
    if given.id is None:
        return None
    found: Row | None = await session.scalar(
        select(table).where(table.id == given.id, table.content_hash == content_of(caller, given))
    )
    return found


async def insert_once[Row: Record](
    session: AsyncSession, caller: Caller, table: type[Row], given: Creation, values: dict[str, Any]
) -> tuple[Row, bool]:
    """Insert a row under the client's id, or find the one that the same create made before.

    Returns the row as it is now and whether it is new. The same id with other content, or with a
    row that the caller cannot see, is 409 `id_conflict`.
    """
    row_id = given.id or ids.new_id()
    now = clock.now()
    content = content_of(caller, given)
    record = {
        "id": row_id,
        "version": 1,
        "created_at": now,
        "updated_at": now,
        "created_by": caller.id,
        "content_hash": content,
    }
    statement = (
        insert(table).values(**record, **values).on_conflict_do_nothing(index_elements=["id"])
    )
    result = await session.execute(statement.returning(table.id))  # type: ignore[call-overload]
    is_new = result.scalar_one_or_none() is not None
    found = await session.scalar(
        select(table).where(table.id == row_id, table.content_hash == content)
    )
    if found is None:
        raise IdConflict
    return found, is_new
