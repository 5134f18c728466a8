"""Merging by field: what a stale change and those made since its base both touch."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from api.models.batch import FieldConflict
from api.models.types import Input, Output
from api.problems import pointer_of

EVERYTHING = ""
_CHANGES = text("""
    select pointer, version, changed_by from field_change
    where resource = :resource and row_id = :row
""")
_WRITE_ONLY = "/beneficiary/identifier"


class Change(NamedTuple):
    """A field, the last version that changed it, and who made that."""

    pointer: str
    version: int
    changed_by: UUID | None


async def changes_since(
    session: AsyncSession, resource: str, present: Output, base: int
) -> list[Change]:
    """Return the fields of a locked row that were changed after `base`.

    Everything, where that cannot be told: the base never was, or lies before the fields' history.
    """
    asked = {"resource": resource, "row": present.id}
    found = [Change(*row) for row in await session.execute(_CHANGES, asked)]
    if not found or not 1 <= base <= present.version:
        return [Change(EVERYTHING, present.version, None)]
    return [change for change in found if change.version > base]


def conflicts_of(change: Input, present: Output, since: Sequence[Change]) -> list[FieldConflict]:
    """Return the fields that a change and others since its base set to different values.

    What the caller may not see cannot be compared: it conflicts, and is not shown.
    """
    now = present.model_dump(mode="json")
    masked = ["/" + name.replace(".", "/") for name in getattr(present, "masked", ())]
    found = []
    for path, yours in _parts(change.model_dump(mode="json", exclude_unset=True)):
        pointer = pointer_of(path)
        others = [one for one in since if _overlap(one.pointer, pointer)]
        if path[0] not in now or not others:
            continue
        unseen = pointer == _WRITE_ONLY or any(_overlap(hidden, pointer) for hidden in masked)
        current = None if unseen else _at(now, path)
        if unseen or current != yours:
            last = max(others, key=lambda one: one.version)
            if pointer == _WRITE_ONLY:
                yours = None  # noqa: PLW2901 - not repeated
            found.append(
                FieldConflict(
                    pointer=pointer, yours=yours, current=current, changed_by=last.changed_by
                )
            )
    return found


def _parts(sent: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Return the fields of a merge patch; an object's members are fields of their own."""
    for name, value in sent.items():
        if isinstance(value, dict):
            yield from (((name, member), part) for member, part in value.items())
        else:
            yield (name,), value


def _at(values: Any, path: Sequence[str]) -> Any:
    for name in path:
        values = values.get(name) if isinstance(values, dict) else None
    return values or None if isinstance(values, dict) else values


def _overlap(one: str, other: str) -> bool:
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")
