"""Reading one item of a batch: what it refers to, its base, and what it would overwrite."""

import re
from contextlib import suppress
from typing import Any
from uuid import UUID

from api.errors import FieldError, PreconditionRequired, ValidationFailed
from api.models.batch import FieldConflict
from api.models.types import Input, Output
from api.problems import pointer_of
from api.services.writing import ANY_VERSION


def references(data: dict[str, Any]) -> set[UUID]:
    """Return the ids that an item's body refers to, as far as they can be read."""
    found = [data.get("team_id"), data.get("household_id")]
    for name in ("member_ids", "memberships"):
        values = data.get(name)
        found += values if isinstance(values, list) else ()
    found = [value.get("team_id") if isinstance(value, dict) else value for value in found]
    ids = set()
    for value in found:
        with suppress(ValueError):
            ids |= {UUID(value)} if isinstance(value, str) else set()
    return ids


def version_of(if_match: str | None) -> int:
    """Return the version that an item was made on; refuse one without, or one that is none."""
    if if_match is None:
        raise PreconditionRequired
    if if_match == "*":
        return ANY_VERSION
    match = re.fullmatch(r'"([0-9]{1,9})"', if_match)
    if match is None:
        raise ValidationFailed(FieldError("/if_match", "version_invalid"))
    return int(match[1])


def conflicts_of(change: Input, current: Output) -> list[FieldConflict]:
    """Return the fields of a change that differ from the present row."""
    now = current.model_dump(mode="json")
    sent = change.model_dump(mode="json", exclude_unset=True)
    return [
        FieldConflict(pointer=pointer_of([name]), yours=value, current=now.get(name))
        for name, value in sent.items()
        if name in now and not _same(now[name], value)
    ]


def _same(present: Any, given: Any) -> bool:
    """Tell whether a merge patch (RFC 7396) leaves a field as it is."""
    if isinstance(present, dict) and isinstance(given, dict):
        return all(_same(present.get(name), value) for name, value in given.items())
    return bool(present == given)
