"""Reading one item of a batch: what it refers to, and its base."""

import re
from contextlib import suppress
from typing import Any
from uuid import UUID

from api.errors import FieldError, PreconditionRequired, ValidationFailed
from api.services.writing import ANY_VERSION


def references(data: dict[str, Any]) -> set[UUID]:
    """Return the ids that an item's body refers to, as far as they can be read."""
    found = [data.get("team_id"), data.get("household_id")]
    for name in ("member_ids", "attendee_ids", "memberships"):
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
